"""Steps are the plain algorithm's, whatever is done to make them fast."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from benchmarks.train import Setting, both_losses

CPU = torch.device("cpu")
DIGITS = Setting(architecture="digits_cnn", dataset="digits", batch_size=32, m_train=2, num_steps=2, learning_rate=0.05)
RESNET = Setting(
    architecture="cifar_resnet20", dataset="cifar10", batch_size=8, m_train=2, num_steps=2, learning_rate=0.01
)


def test_twenty_steps_have_the_losses_of_the_plain_loop() -> None:
    plain, ours = both_losses(DIGITS, 20, CPU)
    assert len(set(plain)) == 20
    # The same mathematics in another order of float32 operations.
    assert ours == pytest.approx(plain, rel=1e-4)


@pytest.fixture
def _in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_in_float64")
def test_a_deep_networks_losses_are_those_of_the_plain_loop_in_double_precision() -> None:
    """A deep network blows float32's rounding up a thousandfold within a few steps, in either loop."""
    plain, ours = both_losses(RESNET, 6, CPU)
    assert len(set(plain)) == 6
    assert ours == pytest.approx(plain, rel=1e-9)
