"""Steps are the plain algorithm's, whatever is done to make them fast."""

import statistics
from collections.abc import Iterator

import pytest
import torch

from benchmarks.training_loops import Setting, fresh_classifier, losses, nudged, our_steps, plain_steps
from jobs.networks.folding import FoldedClassifier
from smoothing.gradients import PlugInEstimator

CPU = torch.device("cpu")
DIGITS = Setting(architecture="digits_cnn", dataset="digits", batch_size=32, m_train=2, num_steps=2, learning_rate=0.05)
RESNET = Setting(
    architecture="cifar_resnet20", dataset="cifar10", batch_size=8, m_train=2, num_steps=2, learning_rate=0.01
)


def both_losses(setting: Setting, num_steps: int) -> tuple[list[float], list[float]]:
    classifier = fresh_classifier(setting)
    plain, ours = plain_steps(setting, classifier, CPU), our_steps(setting, classifier, CPU)
    return losses(plain, setting, num_steps, CPU), losses(ours, setting, num_steps, CPU)


def test_twenty_steps_have_the_losses_of_the_plain_loop() -> None:
    plain, ours = both_losses(DIGITS, 20)
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
    plain, ours = both_losses(RESNET, 6)
    assert len(set(plain)) == 6
    assert ours == pytest.approx(plain, rel=1e-9)


def test_a_deep_networks_losses_are_as_near_as_the_plain_loops_are_to_its_own() -> None:
    """In float32 a ReLU's input may be on the other side of zero by rounding alone, and the attack goes another way.

    So two plain loops whose weights differ by one unit in the last place part, too: that far, and no further.
    """
    plain, ours = both_losses(RESNET, 12)
    moved = losses(plain_steps(RESNET, nudged(fresh_classifier(RESNET)), CPU), RESNET, 12, CPU)
    apart, floor = (
        statistics.median(abs(one - other) / other for one, other in zip(found, plain, strict=True))
        for found in (ours, moved)
    )
    assert 0 < floor < 0.01
    assert apart < 5 * floor  # both are chaotic


def test_folding_loses_no_accuracy() -> None:
    """Gradients of the folded network in float32 err as little as those of the network as it is."""
    classifier = fresh_classifier(RESNET).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(5)
    inputs_BCHW = torch.rand((16, 3, 32, 32), generator=generator)
    noise_MBCHW = 0.25 * torch.randn((1, 16, 3, 32, 32), generator=generator)
    labels_B = torch.arange(16) % 10
    folded = FoldedClassifier(classifier)
    gradient = PlugInEstimator().gradient
    found = [gradient(one, inputs_BCHW, labels_B, noise_MBCHW)[0] for one in (classifier, folded)]
    exact, _ = gradient(classifier.double(), inputs_BCHW.double(), labels_B, noise_MBCHW.double())
    # The median: where a ReLU tips over, either network's gradient is off by a hundredth.
    plain, ours = ((one - exact).flatten(1).norm(dim=1).div(exact.flatten(1).norm(dim=1)).median() for one in found)
    assert 1e-8 < plain < 1e-5
    assert ours < 2 * plain
