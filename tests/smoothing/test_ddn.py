"""DDN against the closed form on linear models, where the nearest adversarial point is known."""

import math

import pytest
import torch
from torch import Tensor

from smoothing.ddn import GAMMA, smoothadv_ddn, step_size
from tests.smoothing.test_gradients import Linear, _linear

INPUTS = torch.full((1, 3, 2, 2), 0.5, dtype=torch.float64)
LABELS = torch.tensor([1])


def _shifted(margin: float) -> Linear:
    """A linear model that INPUTS satisfy with a given margin in l2 distance to the boundary."""
    classifier = _linear(12)
    classifier.bias = margin * float(classifier.weights.norm()) - float(INPUTS.flatten() @ classifier.weights)
    return classifier


def _antithetic(num_pairs: int) -> Tensor:
    """Noise in pairs n, -n: then the smoothed linear model decides exactly as the linear model."""
    half = 0.4 * torch.randn(num_pairs, *INPUTS.shape, generator=torch.Generator().manual_seed(0)).double()
    return torch.cat([half, -half])


NO_NOISE = torch.zeros(1, *INPUTS.shape, dtype=torch.float64)


@pytest.mark.parametrize("noise", [NO_NOISE, _antithetic(1), _antithetic(4)], ids=["base", "m=2", "m=8"])
@pytest.mark.parametrize("margin", [0.05, 0.3])
def test_finds_the_nearest_adversarial_point(noise: Tensor, margin: float) -> None:
    classifier = _shifted(margin)
    found = smoothadv_ddn(
        classifier,
        INPUTS,
        LABELS,
        noise,
        epsilon=1.0,
        num_steps=100,
        generator=torch.Generator(),
        num_levels=None,
    )
    delta = found - INPUTS
    # The length moves by factors of 1 +- gamma around the boundary, which it crosses again and again.
    assert margin < float(delta.norm()) <= margin * (1 + GAMMA) / (1 - GAMMA)
    unit = (classifier.weights / classifier.weights.norm()).reshape(3, 2, 2)
    assert float((-delta * unit).sum() / delta.norm()) > 0.999
    assert classifier(found).argmax(dim=1).item() == 0


def test_projection_comes_last() -> None:
    """Out of reach, the adversarial point is pulled back to the ball, and rounding cannot undo it."""
    for num_levels in (None, 256, 4):
        found = smoothadv_ddn(
            _shifted(0.3),
            INPUTS,
            LABELS,
            NO_NOISE,
            epsilon=0.1,
            num_steps=50,
            generator=torch.Generator(),
            num_levels=num_levels,
        )
        assert float((found - INPUTS).norm()) == pytest.approx(0.1, rel=1e-5)


def test_what_is_tried_has_eight_bits() -> None:
    inputs = torch.randint(0, 256, (1, 3, 2, 2), generator=torch.Generator().manual_seed(0)).double() / 255
    classifier = _linear(12)
    classifier.bias = 0.2 * float(classifier.weights.norm()) - float(inputs.flatten() @ classifier.weights)
    found = smoothadv_ddn(classifier, inputs, LABELS, NO_NOISE, epsilon=5.0, num_steps=50, generator=torch.Generator())
    assert not torch.equal(found, inputs)
    torch.testing.assert_close(found * 255, (found * 255).round(), rtol=0, atol=1e-6)


def test_an_image_without_an_adversarial_point_comes_back_unchanged() -> None:
    found = smoothadv_ddn(
        _shifted(1e6), INPUTS, LABELS, NO_NOISE, epsilon=1.0, num_steps=10, generator=torch.Generator()
    )
    assert torch.equal(found, INPUTS)


def test_a_misclassified_image_comes_back_unchanged() -> None:
    found = smoothadv_ddn(
        _shifted(-0.1), INPUTS, LABELS, NO_NOISE, epsilon=1.0, num_steps=10, generator=torch.Generator()
    )
    assert torch.equal(found, INPUTS)


def test_the_last_perturbation_counts() -> None:
    """One step, of length 1.05 times the first, crosses the boundary; only an evaluation after it can know."""
    classifier = _shifted(0.3)
    found = smoothadv_ddn(
        classifier,
        INPUTS,
        LABELS,
        NO_NOISE,
        epsilon=2.0,
        num_steps=1,
        generator=torch.Generator(),
        initial_norm=0.3,
        num_levels=None,
    )
    assert float((found - INPUTS).norm()) == pytest.approx(0.315, rel=1e-6)


def test_the_first_length_can_be_that_of_epsilon() -> None:
    classifier = _shifted(0.3)
    found = smoothadv_ddn(
        classifier,
        INPUTS,
        LABELS,
        NO_NOISE,
        epsilon=0.4,
        num_steps=1,
        generator=torch.Generator(),
        initial_norm="epsilon",
        num_levels=None,
    )
    # 0.4 * 1.05 crosses, and is projected to 0.4.
    assert float((found - INPUTS).norm()) == pytest.approx(0.4, rel=1e-5)


def test_step_sizes_fall_from_one_by_a_cosine() -> None:
    assert step_size(0, 10) == pytest.approx(1.0)
    assert step_size(5, 10) == pytest.approx(0.505)
    assert [step_size(step_nr, 4) for step_nr in range(4)] == pytest.approx(
        [0.01 + 0.99 * (1 + math.cos(math.pi * step_nr / 4)) / 2 for step_nr in range(4)]
    )
    assert all(step_size(step_nr, 7) > step_size(step_nr + 1, 7) for step_nr in range(6))
