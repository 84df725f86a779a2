import math
from fractions import Fraction

import numpy as np
import pytest

from smoothing.simultaneous import max_false_certificates


def _tail(num_images: int, alpha: Fraction, more_than: int) -> Fraction:
    """P(Binomial > more_than), in exact arithmetic."""
    terms = (
        math.comb(num_images, k) * alpha**k * (1 - alpha) ** (num_images - k)
        for k in range(more_than + 1, num_images + 1)
    )
    return sum(terms, Fraction(0))


@pytest.mark.parametrize(("num_images", "alpha", "rho"), [(1, 0.5, 0.4), (20, 0.25, 0.01), (40, 0.125, 1e-3)])
def test_it_is_the_least_number_in_exact_arithmetic(num_images: int, alpha: float, rho: float) -> None:
    limit = max_false_certificates(num_images, alpha, rho)
    assert _tail(num_images, Fraction(alpha), limit) <= Fraction(rho)
    if limit:
        assert _tail(num_images, Fraction(alpha), limit - 1) > Fraction(rho) * (1 - Fraction(1, 10**6))


def test_values_of_the_papers() -> None:
    assert max_false_certificates(500, 0.001, 0.001) == 4
    assert max_false_certificates(10_000, 0.001, 0.001) == 21


def test_it_grows_with_images_alpha_and_certainty() -> None:
    assert max_false_certificates(1000, 0.001, 1e-3) >= max_false_certificates(500, 0.001, 1e-3)
    assert max_false_certificates(500, 0.01, 1e-3) > max_false_certificates(500, 0.001, 1e-3)
    assert max_false_certificates(500, 0.001, 1e-6) > max_false_certificates(500, 0.001, 1e-3)


def test_coverage_and_that_one_less_fails() -> None:
    """The share of simulated test sets with more false certificates than allowed, against rho."""
    num_images, alpha, rho, num_runs = 2000, 0.01, 0.02, 2_000_000
    false = np.random.default_rng(1).binomial(num_images, alpha, num_runs)
    limit = max_false_certificates(num_images, alpha, rho)
    slack = 5 * math.sqrt(rho / num_runs)  # five standard deviations of the simulation
    assert np.mean(false > limit) <= rho + slack
    assert np.mean(false > limit - 1) > rho + slack


def test_the_published_formula_claims_too_much() -> None:
    """What the published script subtracts lacks a factor 2 under the root: it fails oftener than rho."""
    num_images, alpha, rho = 10_000, 0.001, 0.001
    subtracted = alpha + math.sqrt(alpha * (1 - alpha) * math.log(1 / rho) / num_images)
    subtracted += math.log(1 / rho) / (3 * num_images)
    published = math.floor(num_images * subtracted)
    assert published < max_false_certificates(num_images, alpha, rho)


@pytest.mark.parametrize("arguments", [(0, 0.1, 0.1), (5, 0.0, 0.1), (5, 1.0, 0.1), (5, 0.1, 0.0), (5, 0.1, 1.0)])
def test_bad_arguments(arguments: tuple[int, float, float]) -> None:
    with pytest.raises(ValueError, match="need num_images >= 1"):
        max_false_certificates(*arguments)
