"""Exact-grid noise: its thresholds, its distribution, its sums without rounding, and what it refuses."""

import hashlib
from itertools import pairwise

import mpmath  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats

from smoothing import distributions
from smoothing.certify import LabelledImage, certify_images
from smoothing.distributions import UNIFORM_BITS, ExactGridNoise, GaussianNoise, NoiseDistribution, OffGridError
from smoothing.noise import NoiseStream
from smoothing.radius import ABSTAIN
from smoothing.sequential import Procedure

STREAM = NoiseStream(seed=3, index=5, stage="estimation")
DISTRIBUTIONS = [
    ExactGridNoise(0.25, 255),
    ExactGridNoise(0.12, 16),
    ExactGridNoise(1.0, 255),
    ExactGridNoise(0.01, 16),
]


def probabilities(distribution: ExactGridNoise) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The integers that noise can be, and Phi((j + 1/2) / s) - Phi((j - 1/2) / s) for each, tails included."""
    scale = distribution.sigma * distribution.num_levels
    reach = len(distributions._thresholds(scale)) // 2
    integers = np.arange(-reach, reach + 1)
    edges = np.concatenate([[-np.inf], integers[:-1] + 0.5, [np.inf]])
    return integers, np.diff(stats.norm.cdf(edges / scale))


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=str)
def test_drawn_noise_follows_its_distribution(distribution: ExactGridNoise) -> None:
    drawn = np.concatenate([distribution.block(STREAM, block_nr, (40, 25)).ravel() for block_nr in range(4)]).astype(
        int
    )
    integers, expected = probabilities(distribution)
    observed = np.array([np.sum(drawn == integer) for integer in integers])
    assert observed.sum() == drawn.size == 400_000
    # Cells with fewer than 10 expected draws are pooled, as the chi-square approximation wants.
    often = expected * drawn.size >= 10
    counts = np.append(observed[often], observed[~often].sum())
    expected_of_cells = np.append(expected[often], expected[~often].sum())
    keep = expected_of_cells > 0
    assert (
        stats.chisquare(counts[keep], expected_of_cells[keep] / expected_of_cells[keep].sum() * drawn.size).pvalue
        > 1e-4
    )


def test_a_wrong_distribution_would_be_noticed() -> None:
    """The same chi-square test refuses noise whose sigma is off by two per cent."""
    distribution = DISTRIBUTIONS[0]
    drawn = np.concatenate([distribution.block(STREAM, block_nr, (40, 25)).ravel() for block_nr in range(4)]).astype(
        int
    )
    integers, expected = probabilities(ExactGridNoise(distribution.sigma * 1.02, distribution.num_levels))
    often = expected * drawn.size >= 10
    observed = np.array([np.sum(drawn == integer) for integer in integers[often]])
    shares = expected[often] / expected[often].sum()
    assert stats.chisquare(observed, shares * observed.sum()).pvalue < 1e-4


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=str)
def test_total_variation_holds_against_50_digits(distribution: ExactGridNoise) -> None:
    context = mpmath.mp.clone()
    context.dps = 50
    scale = context.mpf(distribution.sigma * distribution.num_levels)
    thresholds = [
        0,
        *map(int, distributions._thresholds(distribution.sigma * distribution.num_levels)),
        2**UNIFORM_BITS,
    ]
    reach = (len(thresholds) - 2) // 2
    distance = 2 * context.ncdf(-(context.mpf(reach) + 0.5) / scale)  # ideal mass beyond what can be drawn
    for (below, above), integer in zip(pairwise(thresholds), range(-reach, reach + 1), strict=True):
        ideal = context.ncdf((integer + context.mpf(0.5)) / scale) - context.ncdf((integer - context.mpf(0.5)) / scale)
        distance += abs(context.mpf(above - below) / 2**UNIFORM_BITS - ideal)
    assert distance / 2 <= distribution.total_variation(1)
    assert distribution.total_variation(3072) == 3072 * distribution.total_variation(1) < 1e-9


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=str)
def test_the_table_finds_the_bucket_that_a_search_finds(distribution: ExactGridNoise) -> None:
    scale = distribution.sigma * distribution.num_levels
    thresholds = distributions._thresholds(scale)
    assert np.all(thresholds[1:] >= thresholds[:-1])
    assert np.array_equal(thresholds, (np.uint64(2**UNIFORM_BITS) - thresholds)[::-1])
    extremes = np.array([0, 2**UNIFORM_BITS - 1], dtype=np.uint64)
    edges = np.concatenate([thresholds, thresholds - np.uint64(1), extremes])
    uniform = np.concatenate([edges, STREAM.philox(0).random_raw(100_000) >> np.uint64(2)])
    expected = np.searchsorted(thresholds, uniform, side="right") - len(thresholds) // 2
    assert np.array_equal(distributions._bucketed(uniform, scale), expected)


def test_what_a_seed_means_is_pinned() -> None:
    # A change here gives users other noise, and so other records, for the same spec.
    drawn = ExactGridNoise(0.25, 255).block(STREAM, 7, (3, 8, 8))
    assert drawn.dtype == np.float32
    assert hashlib.sha256(drawn.astype("<i2").tobytes()).hexdigest().startswith("0714a1951eaad9c1")


@pytest.mark.parametrize("size", [1, 999, 10**9])
def test_noise_does_not_depend_on_how_much_is_drawn_at_once(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution = ExactGridNoise(0.25, 16)
    expected = distribution.block(STREAM, 1, (1, 8, 8))
    monkeypatch.setattr(distributions, "_PART", size)
    assert np.array_equal(distribution.block(STREAM, 1, (1, 8, 8)), expected)


@pytest.mark.parametrize("num_levels", [16, 255])
def test_inputs_depend_on_the_sum_of_integers_alone(num_levels: int) -> None:
    distribution = ExactGridNoise(0.25, num_levels)
    levels = np.arange(num_levels + 1, dtype=np.float32)
    center = distribution.center(levels / np.float32(num_levels))
    assert np.array_equal(center, levels)
    noise = np.arange(-400, 401, dtype=np.float32)
    inputs = distribution.inputs(torch.from_numpy(center)[:, None], torch.from_numpy(noise)).numpy()
    sums = (levels[:, None] + noise).astype(int)
    for total in np.unique(sums):
        assert np.unique(inputs[sums == total]).size == 1


@pytest.mark.parametrize(
    "value", [0.5, 1 / 256, -1 / 255, 256 / 255, float(np.nextafter(np.float32(0.2), np.float32(1)))]
)
def test_pixels_off_the_grid_are_refused(value: float) -> None:
    image = np.full((1, 2, 2), 51 / 255, dtype=np.float32)
    image[0, 1, 1] = value
    with pytest.raises(OffGridError, match=r"multiples of 1/255 in \[0, 1\]; 1 are not"):
        ExactGridNoise(0.25, 255).center(image)


def certified_share(distribution: NoiseDistribution, num_images: int = 300) -> tuple[float, float]:
    """Share certified and mean radius, for a linear classifier on the grid of 8-bit images."""

    def classifier(inputs_BCHW: torch.Tensor) -> torch.Tensor:
        score_B = inputs_BCHW.flatten(1).mean(dim=1) - 0.5
        return torch.stack([-score_B, score_B], dim=1)

    images = (
        LabelledImage(index=index, label=0, image_CHW=torch.full((1, 2, 2), (130 + index // 4) / 255))
        for index in range(num_images)
    )
    procedure = Procedure(n0=100, n=1000, alpha=0.001)
    certificates = [
        certificate
        for _, certificate in certify_images(
            classifier, images, procedure, distribution, num_classes=2, seed=0, batch_size=1000
        )
    ]
    claims = [certificate.radius for certificate in certificates if certificate.prediction != ABSTAIN]
    return len(claims) / num_images, float(np.mean(claims))


def test_certificates_agree_with_those_of_float_noise() -> None:
    share, radius = certified_share(ExactGridNoise(0.5, 255))
    float_share, float_radius = certified_share(GaussianNoise(0.5))
    # Four standard errors: of a share of 300 images, few of which are in doubt; of a mean of some 280
    # radii whose bounds have a standard deviation of about 0.04 * 0.5 each.
    assert share == pytest.approx(float_share, abs=0.05)
    assert radius == pytest.approx(float_radius, abs=0.01)
