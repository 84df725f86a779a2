"""Binomial bounds: exact values, inverses, a second algorithm, one-sidedness and coverage."""

import math
from collections.abc import Callable
from fractions import Fraction
from math import comb

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from smoothing.bounds import (
    MIN_ALPHA,
    can_certify,
    clopper_pearson_lower,
    clopper_pearson_upper,
    min_count_for,
    min_samples_to_certify,
    top_class_p_value,
    two_sided_interval,
)
from tests.smoothing.exact import MP, binomial_lower_tail, binomial_upper_tail

ALPHAS = (1e-6, 1e-3, 0.05, 0.5)
EXTREMES = [
    (count, num_samples)
    for num_samples in (1, 2, 10, 1000, 100_000, 1_000_000)
    for count in sorted({0, 1, num_samples // 2, num_samples * 99 // 100, num_samples - 1, num_samples})
]
# The bounds give away RELATIVE_SLACK = 1e-12 and scipy's inverse errs by some 1e-15.
TOLERANCE = 1e-11


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("num_samples", [1, 2, 10, 1000, 100_000, 1_000_000])
def test_unanimous_votes_give_the_closed_form(num_samples: int, alpha: float) -> None:
    bound = clopper_pearson_lower(num_samples, num_samples, alpha)
    assert bound == pytest.approx(alpha ** (1 / num_samples), rel=TOLERANCE, abs=0)


@pytest.mark.parametrize("num_samples", [1, 100, 1_000_000])
def test_no_success_proves_nothing_and_no_failure_excludes_nothing(num_samples: int) -> None:
    assert clopper_pearson_lower(0, num_samples, 0.001) == 0.0
    assert clopper_pearson_upper(num_samples, num_samples, 0.001) == 1.0


@pytest.mark.parametrize("alpha", [MIN_ALPHA, *ALPHAS])
@pytest.mark.parametrize(("count", "num_samples"), EXTREMES)
def test_lower_bound_never_exceeds_the_exact_one_and_is_close(count: int, num_samples: int, alpha: float) -> None:
    bound = float(clopper_pearson_lower(count, num_samples, alpha))
    if count == 0:
        assert bound == 0.0
        return
    # The exact bound solves P(X >= count) = alpha, and that tail grows with the probability.
    assert binomial_upper_tail(count, num_samples, bound) <= alpha
    above = min(MP.mpf(bound) * (1 + MP.mpf(TOLERANCE)), MP.mpf(1))
    assert binomial_upper_tail(count, num_samples, above) > alpha


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(("count", "num_samples"), EXTREMES)
def test_upper_bound_is_never_below_the_exact_one_and_is_close(count: int, num_samples: int, alpha: float) -> None:
    bound = float(clopper_pearson_upper(count, num_samples, alpha))
    if count == num_samples:
        assert bound == 1.0
        return
    assert binomial_lower_tail(count, num_samples, bound) <= alpha
    # It is the complement of a lower bound: the slack is relative to that, so absolute here.
    below = max(MP.mpf(bound) - MP.mpf(TOLERANCE), MP.mpf(0))
    assert binomial_lower_tail(count, num_samples, below) > alpha


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("num_samples", [1, 2, 17, 1000, 1_000_000])
def test_bounds_enclose_the_share_of_successes(num_samples: int, alpha: float) -> None:
    counts = np.unique(np.linspace(0, num_samples, 201).astype(np.int64))
    share = counts / num_samples
    assert np.all(clopper_pearson_lower(counts, num_samples, alpha) <= share)
    assert np.all(share <= clopper_pearson_upper(counts, num_samples, alpha))


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("num_samples", [1, 2, 17, 1000, 1_000_000])
def test_bounds_grow_with_the_count(num_samples: int, alpha: float) -> None:
    counts = np.unique(np.linspace(0, num_samples, 1001).astype(np.int64))
    assert np.all(np.diff(clopper_pearson_lower(counts, num_samples, alpha)) > 0)
    assert np.all(np.diff(clopper_pearson_upper(counts, num_samples, alpha)) > 0)


def test_bounds_tighten_as_alpha_grows() -> None:
    counts = np.arange(101)
    lower = np.array([clopper_pearson_lower(counts, 100, alpha) for alpha in np.geomspace(1e-6, 0.5, 30)])
    upper = np.array([clopper_pearson_upper(counts, 100, alpha) for alpha in np.geomspace(1e-6, 0.5, 30)])
    assert np.all(np.diff(lower[:, 1:], axis=0) > 0)
    assert np.all(np.diff(upper[:, :-1], axis=0) < 0)


def test_upper_bound_mirrors_the_lower_one() -> None:
    counts = np.arange(51)
    complement = 1 - clopper_pearson_lower(50 - counts, 50, 0.01)
    # One unit in the last place, for a subtraction that must not round down.
    np.testing.assert_allclose(clopper_pearson_upper(counts, 50, 0.01), complement, rtol=3e-16, atol=0)


def test_counts_and_sample_sizes_broadcast() -> None:
    table = clopper_pearson_lower(np.arange(4)[:, None], np.array([3, 10]), 0.1)
    assert table.shape == (4, 2)
    assert table.dtype == np.float64
    assert table[2, 1] == clopper_pearson_lower(2, 10, 0.1)


@pytest.mark.parametrize("alpha", [1e-6, 1e-3, 0.05, 0.5])
@pytest.mark.parametrize("num_samples", [1, 2, 5, 30, 200])
def test_exact_coverage_is_at_least_1_minus_alpha_and_is_used_up(num_samples: int, alpha: float) -> None:
    counts = np.arange(num_samples + 1)
    lower = clopper_pearson_lower(counts, num_samples, alpha)
    upper = clopper_pearson_upper(counts, num_samples, alpha)
    # The worst probabilities lie just beside a value of the bound.
    grid = np.concatenate([np.linspace(0, 1, 201), np.nextafter(lower[1:], 0), np.nextafter(upper[:-1], 1)])
    mass = stats.binom.pmf(counts, num_samples, grid[:, None])
    error_of_lower = np.sum(mass * (lower > grid[:, None]), axis=1)
    error_of_upper = np.sum(mass * (upper < grid[:, None]), axis=1)
    # 1e-9: rounding of scipy's probabilities and of their sum.
    assert max(error_of_lower.max(), error_of_upper.max()) <= alpha * (1 + 1e-9)
    assert min(error_of_lower.max(), error_of_upper.max()) >= alpha * (1 - 1e-9)


def probability_that_any_look_errs(probability: float, looks: list[int], alpha_per_look: list[float]) -> float:
    """Exact P(the lower bound exceeds the probability at some look), looks on cumulative counts."""
    state, seen, erred = np.ones(1), 0, 0.0  # state[k] = P(k successes so far, no error yet)
    for num_samples, alpha in zip(looks, alpha_per_look, strict=True):
        draws = num_samples - seen
        state = np.convolve(state, stats.binom.pmf(np.arange(draws + 1), draws, probability))
        errs = clopper_pearson_lower(np.arange(num_samples + 1), num_samples, alpha) > probability
        erred += float(state[errs].sum())
        state, seen = np.where(errs, 0.0, state), num_samples
    return erred


@pytest.mark.parametrize("probability", [0.5, 0.7, 0.9, 0.99])
def test_looking_repeatedly_at_the_fixed_n_bound_breaks_its_promise(probability: float) -> None:
    looks = [100 * 2**look_nr for look_nr in range(8)]
    repeated = probability_that_any_look_errs(probability, looks, [0.001] * 8)
    shared = probability_that_any_look_errs(probability, looks, [0.001 / 8] * 8)
    assert repeated > 2.5 * 0.001
    assert shared <= 0.001


def test_looking_repeatedly_breaks_the_promise_in_simulation() -> None:
    rng = np.random.default_rng(0)
    looks = np.array([50, 100, 200, 400, 800, 1600])
    draws = rng.binomial(np.diff(looks, prepend=0), 0.8, size=(20_000, looks.size))
    bounds = clopper_pearson_lower(np.cumsum(draws, axis=1), looks, 0.05)
    # One standard error of these shares is about 0.0025.
    assert np.mean(bounds[:, -1] > 0.8) <= 0.055
    assert np.mean(bounds.max(axis=1) > 0.8) > 0.1


@pytest.mark.parametrize("alpha", [1e-6, 1e-3, 0.05, 0.5])
@pytest.mark.parametrize("num_samples", [1, 2, 9, 10, 11, 57, 200])
def test_min_count_is_the_first_that_reaches(num_samples: int, alpha: float) -> None:
    bounds = clopper_pearson_lower(np.arange(num_samples + 1), num_samples, alpha)
    for probability in (1e-9, 0.1, 0.5, 0.9, 0.999, 1 - 1e-9, *bounds[1:]):
        reaching = np.flatnonzero(bounds >= probability)
        expected = int(reaching[0]) if reaching.size else None
        assert min_count_for(float(probability), num_samples, alpha) == expected


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("num_samples", [1000, 100_000, 1_000_000])
def test_min_count_inverts_the_bound_at_extremes(num_samples: int, alpha: float) -> None:
    for count in (1, 2, num_samples // 2, num_samples - 1, num_samples):
        bound = float(clopper_pearson_lower(count, num_samples, alpha))
        assert min_count_for(bound, num_samples, alpha) == count
        if count < num_samples:
            assert min_count_for(float(np.nextafter(bound, 1)), num_samples, alpha) == count + 1


def test_min_count_is_none_beyond_the_unanimous_bound() -> None:
    assert min_count_for(0.5, 9, 0.001) is None
    assert min_count_for(0.9999, 10, 0.001) is None


@pytest.mark.parametrize(
    ("alpha", "expected"),
    # At alpha = 2**-j, j unanimous votes prove exactly 1/2, less the slack: one more is needed.
    [(0.001, 10), (0.05, 5), (0.4, 2), (0.6, 1), (0.5, 2), (2.0**-10, 11), (1e-6, 20), (1e-300, 997)],
)
def test_fewest_samples_that_can_certify(alpha: float, expected: int) -> None:
    assert min_samples_to_certify(alpha) == expected
    assert can_certify(expected, alpha)
    assert expected == 1 or not can_certify(expected - 1, alpha)


@pytest.mark.parametrize("num_samples", [1, 7, 100])
def test_two_sided_interval_agrees_with_scipy(num_samples: int) -> None:
    counts = np.arange(num_samples + 1)
    lower, upper = two_sided_interval(counts, num_samples, 0.05)
    expected = [stats.binomtest(int(k), num_samples).proportion_ci(0.95, method="exact") for k in counts]
    # scipy's own root finding stops at 2e-12.
    np.testing.assert_allclose(lower, [interval.low for interval in expected], rtol=0, atol=1e-11)
    np.testing.assert_allclose(upper, [interval.high for interval in expected], rtol=0, atol=1e-11)


def test_two_sided_interval_misses_at_most_alpha() -> None:
    counts = np.arange(41)
    lower, upper = two_sided_interval(counts, 40, 0.05)
    grid = np.concatenate([np.linspace(0, 1, 501), np.nextafter(lower[1:], 0), np.nextafter(upper[:-1], 1)])[:, None]
    missed = np.sum(stats.binom.pmf(counts, 40, grid) * ((lower > grid) | (upper < grid)), axis=1)
    assert missed.max() <= 0.05


def exact_p_value(count_top: int, count_second: int) -> Fraction:
    total = count_top + count_second
    tail = sum(comb(total, successes) for successes in range(max(count_top, count_second), total + 1))
    return min(Fraction(1), Fraction(2 * tail, 2**total))


@pytest.mark.parametrize("total", [0, 1, 2, 3, 10, 11, 100, 1001])
def test_p_value_equals_the_sum_of_both_tails(total: int) -> None:
    for count_top in range(0, total + 1, max(1, total // 20)):
        p_value = top_class_p_value(count_top, total - count_top)
        # A few units in the last place of the incomplete beta function, also deep in the tail.
        assert p_value == pytest.approx(float(exact_p_value(count_top, total - count_top)), rel=1e-12, abs=0)


@pytest.mark.parametrize(
    ("count_top", "count_second"), [(1, 0), (60, 40), (50, 50), (40, 60), (50_300, 49_700), (70_000, 30_000)]
)
def test_p_value_equals_scipys_binomial_test(count_top: int, count_second: int) -> None:
    expected = stats.binomtest(count_top, count_top + count_second, 0.5).pvalue
    assert top_class_p_value(count_top, count_second) == pytest.approx(expected, rel=1e-10, abs=1e-300)


@pytest.mark.parametrize("bound", [clopper_pearson_lower, clopper_pearson_upper, two_sided_interval])
@pytest.mark.parametrize(
    ("counts", "num_samples", "alpha", "message"),
    [
        (1, 2, 0.0, "alpha"),
        (1, 2, 2.0, "alpha"),
        (1, 2, -0.1, "alpha"),
        (1, 2, float("nan"), "alpha"),
        (-1, 2, 0.1, "counts"),
        (3, 2, 0.1, "counts"),
        (0, 0, 0.1, "num_samples"),
        ([1, 5], [2, 4], 0.1, "counts"),
        (1.0, 2, 0.1, "integers"),
        (1, 2.0, 0.1, "integers"),
        (True, 2, 0.1, "integers"),
    ],
)
def test_bounds_refuse_what_is_outside_their_range(
    bound: Callable[[npt.ArrayLike, npt.ArrayLike, float], object],
    counts: npt.ArrayLike,
    num_samples: npt.ArrayLike,
    alpha: float,
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        bound(counts, num_samples, alpha)


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_min_count_refuses_a_probability_outside_0_1(probability: float) -> None:
    with pytest.raises(ValueError, match="probability"):
        min_count_for(probability, 10, 0.1)


@pytest.mark.parametrize(("num_samples", "alpha"), [(0, 0.1), (-1, 0.1), (10, 0.0), (10, 1.0)])
def test_min_count_refuses_what_the_bound_refuses(num_samples: int, alpha: float) -> None:
    with pytest.raises(ValueError, match=r"num_samples|alpha"):
        min_count_for(0.5, num_samples, alpha)


@pytest.mark.parametrize("alpha", [0.0, -1.0, 1.0, 2.0, float("nan")])
def test_fewest_samples_refuses_an_alpha_outside_0_1(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha must lie"):
        min_samples_to_certify(alpha)


@pytest.mark.parametrize("alpha", [9.9e-31, 1e-200, 1e-320, 0.0, 1.0, math.nan])
def test_an_alpha_where_the_inverse_errs_is_refused(alpha: float) -> None:
    for bound in (clopper_pearson_lower, clopper_pearson_upper):
        with pytest.raises(ValueError, match=r"alpha must lie in \[1e-30, 1\)"):
            bound(990, 1000, alpha)
