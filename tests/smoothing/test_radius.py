"""Radii: published values, never above the exact number, and text that is never rounded up."""

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothing.bounds import clopper_pearson_lower
from smoothing.radius import certified_radius, format_radius, max_radius, two_class_radius
from tests.smoothing.exact import MP, Real, normal_quantile

quick = settings(deadline=None, derandomize=True, max_examples=200)
probabilities = st.floats(1e-12, 1 - 1e-12)
sigmas = st.floats(0.01, 10)
# Radii give away 1e-12 of their size; scipy's normal quantile errs by some 1e-15.
TOLERANCE = 1e-11


@pytest.mark.parametrize(("sigma", "expected"), [(0.12, 0.457), (0.25, 0.953), (0.5, 1.906), (1.0, 3.8115)])
def test_largest_radii_of_the_usual_runs(sigma: float, expected: float) -> None:
    assert max_radius(100_000, 0.001, sigma) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("num_samples", [10, 100, 100_000])
def test_largest_radius_is_just_below_the_closed_form(num_samples: int) -> None:
    exact = normal_quantile(MP.mpf(0.001) ** (MP.mpf(1) / num_samples))
    radius = max_radius(num_samples, 0.001, 1.0)
    assert radius <= exact
    # The bound's slack of 1e-12, over the normal density at 3.8, which is 2.8e-4.
    assert radius == pytest.approx(float(exact), abs=5e-9)


def test_no_count_gives_a_larger_radius_than_unanimity() -> None:
    radii = certified_radius(clopper_pearson_lower(np.arange(1001), 1000, 0.001), 0.5)
    assert radii.max() == radii[-1] == max_radius(1000, 0.001, 0.5)


def test_too_few_samples_have_no_radius() -> None:
    assert max_radius(9, 0.001, 1.0) == 0.0
    assert max_radius(10, 0.001, 1.0) > 0.0


def assert_just_below(radius: float, exact: Real) -> None:
    assert radius <= exact
    assert radius >= exact * (1 - TOLERANCE)


@pytest.mark.parametrize("p_lower", [0.5 + 1e-15, 0.5 + 1e-9, 0.501, 0.6, 0.9, 0.99, 1 - 1e-9, 1 - 2.0**-53])
@pytest.mark.parametrize("sigma", [0.12, 1.0, 7.3])
def test_radius_is_just_below_the_exact_one(p_lower: float, sigma: float) -> None:
    assert_just_below(float(certified_radius(p_lower, sigma)), MP.mpf(sigma) * normal_quantile(p_lower))


@quick
@given(p_lower=st.floats(0.5, 1, exclude_max=True), sigma=sigmas)
def test_radius_never_exceeds_the_exact_one(p_lower: float, sigma: float) -> None:
    assert float(certified_radius(p_lower, sigma)) <= MP.mpf(sigma) * normal_quantile(p_lower)


def test_no_majority_has_no_radius() -> None:
    assert np.array_equal(certified_radius([0.0, 0.1, 0.4999, 0.5], 1.0), np.zeros(4))


def test_certainty_has_every_radius() -> None:
    assert certified_radius(1.0, 1.0) == math.inf
    assert two_class_radius(1.0, 0.3, 1.0) == math.inf
    assert two_class_radius(0.3, 0.0, 1.0) == math.inf
    assert two_class_radius(1.0, 1.0, 1.0) == 0.0
    assert two_class_radius(0.0, 0.0, 1.0) == 0.0


def test_radius_grows_with_the_probability_and_in_proportion_to_sigma() -> None:
    p_lower = np.linspace(0.5, 1, 1000)
    assert np.all(np.diff(certified_radius(p_lower, 1.0)[:-1]) > 0)
    assert np.array_equal(certified_radius(p_lower, 0.5), 0.5 * certified_radius(p_lower, 1.0))


@quick
@given(p_top=probabilities, p_second=probabilities, sigma=sigmas)
def test_two_class_radius_is_equation_2_and_never_above_it(p_top: float, p_second: float, sigma: float) -> None:
    exact = MP.mpf(sigma) / 2 * (normal_quantile(p_top) - normal_quantile(p_second))
    radius = float(two_class_radius(p_top, p_second, sigma))
    assert 0 <= radius <= max(exact, 0)
    # The terms cancel where the probabilities are close, hence the second term.
    assert radius >= exact * (1 - TOLERANCE) - sigma * TOLERANCE


@quick
@given(p_top=st.floats(0.01, 0.49), gap=st.floats(1e-14, 1e-3))
def test_two_class_radius_stays_below_where_the_quantiles_cancel(p_top: float, gap: float) -> None:
    exact = (normal_quantile(p_top) - normal_quantile(p_top - gap)) / 2
    assert float(two_class_radius(p_top, p_top - gap, 1.0)) <= max(exact, 0)


@quick
@given(p_lower=probabilities, sigma=sigmas)
def test_two_class_radius_with_the_complement_is_the_certified_radius(p_lower: float, sigma: float) -> None:
    assert two_class_radius(p_lower, 1 - p_lower, sigma) == certified_radius(p_lower, sigma)


@quick
@given(p_top=probabilities, p_second=probabilities, sigma=sigmas)
def test_lipschitz_radius_is_dominated(p_top: float, p_second: float, sigma: float) -> None:
    """Salman et al. 2019, appendix A: what Lemma 1 alone proves, Lemma 2 improves upon."""
    lipschitz_constant = math.sqrt(2 / math.pi) / sigma
    lipschitz_radius = max(p_top - p_second, 0.0) / (2 * lipschitz_constant)
    assert lipschitz_radius <= two_class_radius(p_top, p_second, sigma) + sigma * TOLERANCE


def test_radii_broadcast() -> None:
    assert two_class_radius(np.full((3, 1), 0.8), np.array([0.1, 0.2]), 1.0).shape == (3, 2)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan")])
def test_sigma_must_be_positive(sigma: float) -> None:
    with pytest.raises(ValueError, match="sigma"):
        certified_radius(0.9, sigma)


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan"), [0.5, 2.0]])
def test_probabilities_must_lie_in_0_1(probability: float | list[float]) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        certified_radius(probability, 1.0)
    with pytest.raises(ValueError, match="probabilities"):
        two_class_radius(0.5, probability, 1.0)


@pytest.mark.parametrize(
    ("radius", "decimals", "text"),
    [
        (0.9999, 3, "0.999"),
        (0.4573799, 3, "0.457"),
        (1.0, 3, "1.000"),
        (0.3, 1, "0.3"),
        (0.0, 2, "0.00"),
        (1e-20, 3, "0.000"),
        (2.99, 0, "2"),
        (3.8115, 3, "3.811"),
    ],
)
def test_text_of_a_radius(radius: float, decimals: int, text: str) -> None:
    assert format_radius(radius, decimals) == text


@quick
@given(radius=st.floats(0, 1e6))
def test_text_without_a_number_of_digits_is_the_radius_itself(radius: float) -> None:
    assert float(format_radius(radius)) == radius
    assert "e" not in format_radius(radius).lower()


@pytest.mark.parametrize(
    ("radius", "text"), [(0.0, "0"), (1.0, "1"), (100.0, "100"), (0.25, "0.25"), (1e-7, "0.0000001")]
)
def test_text_of_a_radius_with_all_its_digits(radius: float, text: str) -> None:
    assert format_radius(radius) == text


@quick
@given(radius=st.floats(0, 1e6), decimals=st.integers(0, 9))
def test_text_is_rounded_towards_zero_never_up(radius: float, decimals: int) -> None:
    text = format_radius(radius, decimals)
    assert Decimal(text).as_tuple().exponent == -decimals
    assert float(text) <= radius
    # The next text of this length would be above the shortest decimal that means this float.
    assert Decimal(text) + Decimal(1).scaleb(-decimals) > Decimal(repr(radius))
