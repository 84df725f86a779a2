"""Noise streams: a function of their key, disjoint, normal, and fixed for ever."""

from dataclasses import replace
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from smoothing.noise import BLOCK_ROWS, NoiseStream, Stage

STREAM = NoiseStream(seed=3, index=20, stage="estimation")
STAGES: tuple[Stage, ...] = ("selection", "estimation", "prediction")


def test_block_is_a_function_of_its_arguments() -> None:
    later, again = STREAM.block(5, (3, 4)), replace(STREAM).block(5, (3, 4))
    assert np.array_equal(later, again)
    assert later.shape == (BLOCK_ROWS, 3, 4)
    assert later.dtype == np.float32


def test_no_two_keys_share_a_number_at_the_start_of_their_blocks() -> None:
    blocks = [
        NoiseStream(seed=seed, index=index, stage=stage).block(block_nr, (2, 5))
        for seed, index, stage, block_nr in product((0, 1, 2), (0, 1, 2), STAGES, (0, 1, 2))
    ]
    # Swapped seed and index, shifted block and stage, all are among these keys.
    assert len({block[:1].tobytes() for block in blocks}) == len(blocks)


@pytest.mark.parametrize("seed", [0, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 2])
def test_neighbouring_seeds_differ_over_the_whole_range(seed: int) -> None:
    first, second = (replace(STREAM, seed=value).block(0, (5,)) for value in (seed, seed + 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("index", [0, 2**53, 2**63, 2**64 - 2])
def test_neighbouring_images_differ_over_the_whole_range(index: int) -> None:
    first, second = (replace(STREAM, index=value).block(0, (5,)) for value in (index, index + 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("stage", STAGES)
def test_noise_is_standard_normal(stage: Stage) -> None:
    noise = np.concatenate([replace(STREAM, stage=stage).block(block_nr, (100,)) for block_nr in range(20)])
    # 200 000 seeded numbers: the statistic is fixed; 1e-3 is the level of the test.
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    assert noise.mean() == pytest.approx(0, abs=0.01)
    assert noise.std() == pytest.approx(1, abs=0.01)


def correlation(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def test_neighbouring_streams_are_uncorrelated() -> None:
    noise = STREAM.block(0, (1000,))
    neighbours = [
        replace(STREAM, seed=4).block(0, (1000,)),
        replace(STREAM, index=21).block(0, (1000,)),
        replace(STREAM, stage="selection").block(0, (1000,)),
        replace(STREAM, stage="prediction").block(0, (1000,)),
        STREAM.block(1, (1000,)),
    ]
    # 100 000 pairs: one standard error is 0.003.
    assert max(abs(correlation(noise, neighbour)) for neighbour in neighbours) < 0.015


def test_rows_of_a_block_are_uncorrelated() -> None:
    noise = STREAM.block(0, (1000,))
    assert abs(correlation(noise[1:], noise[:-1])) < 0.015


@pytest.mark.parametrize(
    ("seed", "index", "stage", "block_nr", "expected"),
    [
        (0, 0, "selection", 0, [0.059911035, 0.015559634, -1.1644385, -0.13264713]),
        (0, 0, "estimation", 0, [1.5053303, 0.5184232, 0.12157429, -0.90083563]),
        (7, 1234, "prediction", 9, [-0.41478062, -0.949004, 3.2790337, -0.38409525]),
    ],
)
def test_what_a_seed_means_never_changes(
    seed: int, index: int, stage: Stage, block_nr: int, expected: list[float]
) -> None:
    """A change here gives other votes for the same seed: every recorded run loses its meaning."""
    noise = NoiseStream(seed=seed, index=index, stage=stage).block(block_nr, (2,))
    np.testing.assert_array_equal(noise[:2].ravel(), np.array(expected, dtype=np.float32), strict=True)


def test_block_size_is_part_of_what_a_seed_means() -> None:
    assert BLOCK_ROWS == 100
