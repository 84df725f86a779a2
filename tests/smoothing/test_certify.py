"""CERTIFY and PREDICT on a linear classifier, whose smoothed radius is known in closed form.

f(x) = sign(w . x + b) smoothed by N(0, sigma^2 I) is the same sign, with radius |w . x + b| / ||w||.
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from smoothing import SmoothedClassifier
from smoothing.certificate import Certificate, certificate_from_counts
from smoothing.counts import class_counts
from smoothing.noise import NoiseStream, Stage
from smoothing.radius import ABSTAIN

SIGMA, ALPHA = 0.5, 0.05
WEIGHTS_D = torch.tensor([3.0, -4.0])
NUM_TRIALS = 2000


def linear_classifier(inputs_BCHW: Tensor) -> Tensor:
    """Class 1 where w . (x - 1/2) > 0, else class 0; ||w|| = 5."""
    score_B = (inputs_BCHW.flatten(1) - 0.5) @ WEIGHTS_D
    return torch.stack([-score_B, score_B], dim=1)


def image_at(distance: float) -> Tensor:
    """An image at a signed distance from the decision boundary, on the side of class 1 if positive."""
    return (0.5 + distance * WEIGHTS_D / 5).reshape(1, 1, 2)


def certificate_at(distance: float, *, seed: int = 0, index: int = 0, batch_size: int = 500) -> Certificate:
    smoothed = SmoothedClassifier(base_classifier=linear_classifier, sigma=SIGMA, seed=seed, batch_size=batch_size)
    (certificate,) = smoothed.certify(image_at(distance), n0=100, n=200, alpha=ALPHA, first_index=index)
    return certificate


def prediction_at(distance: float, *, seed: int = 0, index: int = 0) -> int:
    smoothed = SmoothedClassifier(base_classifier=linear_classifier, sigma=SIGMA, seed=seed)
    (prediction,) = smoothed.predict(image_at(distance), n=200, alpha=ALPHA, first_index=index)
    return prediction


def most_errors_by_chance() -> int:
    """Errors that a rate of ALPHA exceeds once in a million seeds."""
    return int(stats.binom.ppf(1 - 1e-6, NUM_TRIALS, ALPHA))


@pytest.mark.parametrize("distance", [0.3, -0.05])
def test_certified_radius_exceeds_the_true_one_at_most_at_rate_alpha(distance: float) -> None:
    certificates = [certificate_at(distance, index=index) for index in range(NUM_TRIALS)]
    claims = [certificate for certificate in certificates if certificate.prediction != ABSTAIN]
    true_class = int(distance > 0)
    num_wrong = sum(claim.prediction != true_class or claim.radius > abs(distance) for claim in claims)
    assert num_wrong <= most_errors_by_chance()
    # Coverage is never much above 1 - alpha: a bound that gave away more would show no errors.
    assert num_wrong >= ALPHA * NUM_TRIALS / 4


def test_certificates_are_not_vacuous() -> None:
    certificates = [certificate_at(0.3, index=index) for index in range(200)]
    assert all(certificate.prediction == 1 for certificate in certificates)
    assert np.mean([certificate.radius for certificate in certificates]) > 0.7 * 0.3


def test_predictions_are_wrong_at_most_at_rate_alpha() -> None:
    predictions = np.array([prediction_at(0.02, index=index) for index in range(NUM_TRIALS)])
    assert np.sum(predictions == 0) <= most_errors_by_chance()
    assert np.sum(predictions == ABSTAIN) > 0


@pytest.mark.parametrize("distance", [0.4, -0.4])
def test_clear_predictions_are_right(distance: float) -> None:
    predictions = [prediction_at(distance, index=index) for index in range(50)]
    assert predictions == [int(distance > 0)] * 50


def test_votes_estimate_the_smoothed_classifier() -> None:
    smoothed = SmoothedClassifier(base_classifier=linear_classifier, sigma=SIGMA)
    (certificate,) = smoothed.certify(image_at(0.3), n=20_000, alpha=ALPHA)
    counts = certificate.counts
    expected = 0.5 * (1 + math.erf(0.3 / SIGMA / math.sqrt(2)))
    # Four standard errors of a share of 20 000.
    assert counts[1] / 20_000 == pytest.approx(expected, abs=0.013)


def same(first: Certificate, second: Certificate) -> bool:
    return (
        (first.prediction, first.radius, first.p_lower) == (second.prediction, second.radius, second.p_lower)
        and np.array_equal(first.counts0, second.counts0)
        and np.array_equal(first.counts, second.counts)
    )


def test_certificate_depends_on_seed_and_index_alone() -> None:
    expected = certificate_at(0.2, seed=1, index=7)
    certificate_at(0.1, seed=1, index=8)
    assert same(certificate_at(0.2, seed=1, index=7), expected)
    assert same(certificate_at(0.2, seed=1, index=7, batch_size=1), expected)
    assert not same(certificate_at(0.2, seed=2, index=7), expected)
    assert not same(certificate_at(0.2, seed=1, index=8), expected)


def test_prediction_is_deterministic() -> None:
    first, second = ([prediction_at(0.05, index=index) for index in range(30)] for _ in range(2))
    assert first == second
    assert {ABSTAIN, 1} <= set(first)


def votes_of(stage: Stage, num_samples: int) -> list[int]:
    counts = class_counts(
        linear_classifier,
        image_at(0.2),
        sigma=SIGMA,
        num_samples=num_samples,
        num_classes=2,
        stream=NoiseStream(seed=1, index=7, stage=stage),
        batch_size=500,
    )
    return [int(count) for count in counts]


def test_selection_and_estimation_use_their_own_draws() -> None:
    certificate = certificate_at(0.2, seed=1, index=7)
    assert certificate.counts0.tolist() == votes_of("selection", 100)
    assert certificate.counts.tolist() == votes_of("estimation", 200)
    assert votes_of("selection", 200) != votes_of("estimation", 200)


def test_certificate_follows_from_its_votes() -> None:
    certificate = certificate_at(0.2)
    again = certificate_from_counts(certificate.counts0, certificate.counts, sigma=SIGMA, alpha=ALPHA)
    assert same(again, certificate)


def test_a_batch_is_its_images_one_by_one() -> None:
    distances = [0.3, -0.05, 0.0, 0.4]
    smoothed = SmoothedClassifier(base_classifier=linear_classifier, sigma=SIGMA)
    images_BCHW = torch.stack([image_at(distance) for distance in distances])
    certificates = smoothed.certify(images_BCHW, n=200, alpha=ALPHA, first_index=5)
    expected = [certificate_at(distance, index=5 + nr) for nr, distance in enumerate(distances)]
    assert all(same(one, other) for one, other in zip(certificates, expected, strict=True))
    predictions = smoothed.predict(images_BCHW, n=200, alpha=ALPHA, first_index=5)
    assert predictions == [prediction_at(distance, index=5 + nr) for nr, distance in enumerate(distances)]


def test_a_module_is_certified_as_its_function() -> None:
    linear = nn.Linear(2, 2)
    module = nn.Sequential(nn.Flatten(), linear)
    smoothed = SmoothedClassifier(base_classifier=module, sigma=SIGMA)
    with pytest.raises(ValueError, match=r"training mode.*eval\(\)"):
        smoothed.certify(image_at(0.3), n=200)
    module.eval()
    with torch.no_grad():
        linear.weight.copy_(torch.stack([-WEIGHTS_D, WEIGHTS_D]))
        linear.bias.copy_(torch.tensor([-0.5, 0.5]))  # w . (1/2, 1/2) = -1/2
    (certificate,) = smoothed.certify(image_at(0.3), n0=100, n=200, alpha=ALPHA)
    assert same(certificate, certificate_at(0.3))


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (torch.zeros(2), {}, r"shape \(C, H, W\) or \(B, C, H, W\), got \(2,\)"),
        (torch.zeros(0, 1, 1, 2), {}, r"got \(0, 1, 1, 2\)"),
        (torch.zeros(1, 1, 2, dtype=torch.uint8), {}, r"float32 pixels in \[0, 1\]"),
        (torch.full((1, 1, 2), 1.5), {}, r"float32 pixels in \[0, 1\]"),
        (torch.full((1, 1, 2), torch.nan), {}, r"float32 pixels in \[0, 1\]"),
        (torch.zeros(1, 1, 2), {"n": 9}, r"never certify.*n >= 10"),
        (torch.zeros(1, 1, 2), {"n0": 0}, "n0 >= 1"),
        (torch.zeros(1, 1, 2), {"alpha": 0.0}, r"alpha must lie in \(0, 1\)"),
    ],
)
def test_arguments_outside_their_range_are_refused(image: Tensor, options: dict[str, float], message: str) -> None:
    smoothed = SmoothedClassifier(base_classifier=linear_classifier, sigma=SIGMA)
    with pytest.raises(ValueError, match=message):
        smoothed.certify(image, **{"n": 100, **options})  # type: ignore[arg-type]
