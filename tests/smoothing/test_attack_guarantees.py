"""What every attack promises of every output: inside the ball, inside [0, 1], nothing left behind."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from smoothing.attacks import smoothadv_pgd
from smoothing.ddn import smoothadv_ddn
from smoothing.gradients import PlugInEstimator, SteinEstimator

SIGMA = 0.3


def _vanilla(classifier: nn.Module, inputs: Tensor, labels: Tensor, noise: Tensor, **settings: Any) -> Tensor:
    return smoothadv_pgd(classifier, inputs, labels, torch.zeros_like(noise[:1]), **settings)


ATTACKS: dict[str, Callable[..., Tensor]] = {
    "pgd": smoothadv_pgd,
    "pgd beta": functools.partial(smoothadv_pgd, estimator=PlugInEstimator(inverse_temperature=16.0)),
    "stein": functools.partial(smoothadv_pgd, estimator=SteinEstimator(sigma=SIGMA)),
    "stein hard": functools.partial(smoothadv_pgd, estimator=SteinEstimator(sigma=SIGMA, hard=True)),
    "vanilla": _vanilla,
    "ddn": smoothadv_ddn,
    "ddn from epsilon": functools.partial(smoothadv_ddn, initial_norm="epsilon"),
    "ddn unrounded": functools.partial(smoothadv_ddn, num_levels=None),
}


def _network(num_pixels: int, kind: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layers: dict[str, list[nn.Module]] = {
        "linear": [nn.Linear(num_pixels, 3)],
        "mlp": [nn.Linear(num_pixels, 8), nn.ReLU(), nn.Linear(8, 3)],
        "steep": [nn.Linear(num_pixels, 8), nn.Tanh(), _Scale(1e6), nn.Linear(8, 3)],
        "constant": [nn.Linear(num_pixels, 3), _Scale(0.0)],
    }
    return nn.Sequential(nn.Flatten(), *layers[kind]).eval().requires_grad_(False)


class _Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, values: Tensor) -> Tensor:
        return values * self.factor


@pytest.mark.parametrize("name", ATTACKS)
@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.sampled_from([1, 3]), st.integers(1, 9), st.integers(1, 7)),
    m=st.integers(1, 4),
    num_steps=st.integers(0, 6),
    epsilon=st.one_of(st.just(0.0), st.floats(1e-6, 8.0)),
    kind=st.sampled_from(["linear", "mlp", "steep", "constant"]),
    seed=st.integers(0, 2**16),
)
def test_every_output_is_an_image_within_epsilon(
    name: str, shape: tuple[int, int, int, int], m: int, num_steps: int, epsilon: float, kind: str, seed: int
) -> None:
    classifier = _network(shape[1] * shape[2] * shape[3], kind, seed)
    inputs = torch.rand(shape).round(decimals=seed % 4)  # with and without pixels at 0 and 1
    labels = torch.randint(0, 3, shape[:1])
    noise = SIGMA * torch.randn(m, *shape)
    before = inputs.clone()

    found = ATTACKS[name](
        classifier, inputs, labels, noise, epsilon=epsilon, num_steps=num_steps, generator=torch.Generator()
    )

    assert found.shape == inputs.shape
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert found.min() >= 0
    assert found.max() <= 1
    # Exact: differences of float32 pixels have no rounding in float64.
    distances = (found.double() - inputs.double()).flatten(1).norm(dim=1)
    assert (distances <= epsilon).all()
    assert torch.equal(inputs, before)
    assert all(parameter.grad is None for parameter in classifier.parameters())


@pytest.mark.parametrize("name", ATTACKS)
def test_large_images_stay_within_a_small_epsilon(name: str) -> None:
    shape = (2, 3, 224, 224)
    torch.manual_seed(0)
    classifier = _network(3 * 224 * 224, "linear", 0)
    inputs, labels = torch.rand(shape), torch.tensor([0, 1])
    noise = SIGMA * torch.randn(2, *shape)
    for epsilon in (1e-3, 0.5):
        found = ATTACKS[name](
            classifier, inputs, labels, noise, epsilon=epsilon, num_steps=3, generator=torch.Generator()
        )
        distances = (found.double() - inputs.double()).flatten(1).norm(dim=1)
        assert (distances <= epsilon).all()
        assert (distances > 0).any() or "ddn" in name  # ddn may well find nothing


# Votes may vanish on all draws, and the random direction taken then is the batch's.
@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "stein hard"])
def test_an_image_does_not_depend_on_its_neighbours(name: str) -> None:
    """One image at a time gives what the batch gives (float64, so that rounding cannot matter)."""
    torch.manual_seed(3)
    classifier = _network(2 * 5 * 3, "mlp", 3).double()
    inputs, labels = torch.rand(8, 2, 5, 3).double(), torch.randint(0, 3, (8,))
    noise = SIGMA * torch.randn(4, 8, 2, 5, 3).double()
    attack = functools.partial(ATTACKS[name], classifier, epsilon=0.7, num_steps=5, generator=torch.Generator())
    together = attack(inputs, labels, noise)
    for size in (1, 3):
        parts = [
            attack(inputs[start : start + size], labels[start : start + size], noise[:, start : start + size])
            for start in range(0, 8, size)
        ]
        torch.testing.assert_close(torch.cat(parts), together, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_constant_classifier_gets_unit_steps_in_random_directions(name: str) -> None:
    """Where the gradient is exactly 0 there is no division by it: the step has its full length.

    The constant's loss is 0 everywhere, so DDN finds nothing adversarial and returns the images.
    """
    classifier = _network(48, "constant", 0)
    inputs, labels = torch.full((2, 3, 4, 4), 0.5), torch.tensor([0, 0])
    noise = SIGMA * torch.randn(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    noise -= noise.mean(dim=0)  # so that the gradient-free estimate is 0 as well
    found = ATTACKS[name](
        classifier, inputs, labels, noise, epsilon=0.5, num_steps=1, generator=torch.Generator().manual_seed(0)
    )
    distances = (found - inputs).flatten(1).norm(dim=1)
    torch.testing.assert_close(distances, torch.full((2,), 0.0 if "ddn" in name else 0.5), rtol=1e-5, atol=0)
