import numpy as np
import pytest
from scipy import stats

from smoothing.bounds import clopper_pearson_upper
from smoothing.bracket import min_possible_count, n_limited_radius


@pytest.mark.parametrize("n", [1, 10, 1000, 100_000])
@pytest.mark.parametrize("sigma", [0.12, 1.0])
def test_it_is_where_the_upper_bound_reaches_the_radius(n: int, sigma: float) -> None:
    radii = sigma * np.array([0.0, 0.3, 1.0, 2.5, 3.5, 6.0])
    needed = stats.norm.cdf(radii / sigma)
    counts = min_possible_count(radii, n=n, sigma=sigma, alpha=0.001)
    for count, probability in zip(counts.tolist(), needed.tolist(), strict=True):
        assert clopper_pearson_upper(count, n, 0.001) >= probability * (1 - 1e-11)
        if count:
            assert clopper_pearson_upper(count - 1, n, 0.001) < probability


def test_it_never_falls_with_the_radius_and_unanimous_votes_rule_nothing_out() -> None:
    counts = min_possible_count(np.linspace(0, 8, 200), n=100_000, sigma=1.0, alpha=0.001)
    assert (np.diff(counts) >= 0).all()
    assert counts[-1] == 100_000


def test_an_image_that_is_robust_is_rarely_ruled_out() -> None:
    """True probability exactly what the radius takes: fewer votes come with probability at most alpha."""
    n, alpha, radius = 1000, 0.01, 0.2
    needed = int(min_possible_count(radius, n=n, sigma=0.25, alpha=alpha))
    probability = stats.norm.cdf(radius / 0.25)
    assert stats.binom.cdf(needed - 1, n, probability) <= alpha
    # The negative: one vote more required, and true radii are ruled out too often.
    assert stats.binom.cdf(needed, n, probability) > alpha


def test_noise_that_is_not_ideal_rules_out_no_more() -> None:
    n, alpha, radius, distance = 1000, 0.01, 0.2, 0.05
    needed = int(min_possible_count(radius, n=n, sigma=0.25, alpha=alpha, total_variation=distance))
    drawn = stats.norm.cdf(radius / 0.25) - distance  # the worst distribution within the distance
    assert stats.binom.cdf(needed - 1, n, drawn) <= alpha
    # The negative: the distance forgotten, and true radii are ruled out too often.
    forgotten = int(min_possible_count(radius, n=n, sigma=0.25, alpha=alpha))
    assert stats.binom.cdf(forgotten - 1, n, drawn) > alpha


def test_the_limit_of_n_is_three_sigma_for_the_papers_and_less_for_fewer_draws() -> None:
    assert n_limited_radius(0.5, 100_000, 0.001) == pytest.approx(1.5)
    assert n_limited_radius(0.5, None, None) == 1.5
    assert n_limited_radius(0.5, 1000, 0.001) < 1.5 < n_limited_radius(0.5, 10**6, 0.001)
