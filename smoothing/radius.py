"""Certified l2 radii of a Gaussian-smoothed classifier, and their text form.

Radii and sigma are l2 lengths in pixels scaled to [0, 1].
"""

from decimal import ROUND_DOWN, Decimal

import numpy as np
import numpy.typing as npt

from smoothing.bounds import RELATIVE_SLACK, clopper_pearson_lower

ABSTAIN = -1
"""The prediction of an abstention."""


def certified_radius(p_lower: npt.ArrayLike, sigma: float) -> npt.NDArray[np.float64]:
    """The radius within which the top class cannot change.

    Args:
        p_lower: Lower bounds on the top class's probability under noise, in [0, 1]; any shape.
        sigma: Standard deviation of the noise, > 0.

    Returns:
        sigma * Phi^-1(p_lower) where p_lower >= 1/2, else 0. Float64, same shape.

    Raises:
        ValueError: An argument is outside its range.

    Guarantee:
        If p_lower is a true lower bound, the smoothed prediction is constant on the ball. Numerical
        error shrinks the radius.

    Source:
        Cohen et al. 2019, Theorem 1 with p_B = 1 - p_A.
    """
    bound = np.asarray(p_lower, dtype=np.float64)
    return two_class_radius(bound, 1.0 - bound, sigma)


def two_class_radius(
    p_top_lower: npt.ArrayLike, p_second_upper: npt.ArrayLike, sigma: float
) -> npt.NDArray[np.float64]:
    """The general radius sigma / 2 * (Phi^-1(p_top_lower) - Phi^-1(p_second_upper)), at least 0.

    Args:
        p_top_lower: Lower bounds on the top class's probability, in [0, 1].
        p_second_upper: Upper bounds on every other class's probability, in [0, 1].
        sigma: Standard deviation of the noise, > 0.

    Returns:
        Radii, float64, the broadcast shape. Numerical error shrinks them.

    Source:
        Salman et al. 2019, equation (2).
    """
    from scipy import special  # slow to import

    top = np.asarray(p_top_lower, dtype=np.float64)
    second = np.asarray(p_second_upper, dtype=np.float64)
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma!r}")
    if not (np.all((top >= 0) & (top <= 1)) and np.all((second >= 0) & (second <= 1))):
        raise ValueError("probabilities must lie in [0, 1]")
    # If the top class does not lead, the difference certifies nothing (and may be inf - inf).
    wins = top > second
    # Each quantile is loosened separately: the quantiles may cancel in the difference, their errors do not.
    high, low = special.ndtri(np.where(wins, top, 0.5)), special.ndtri(np.where(wins, second, 0.5))
    high = high * (1.0 - np.copysign(RELATIVE_SLACK, high))
    low = low * (1.0 + np.copysign(RELATIVE_SLACK, low))
    return np.maximum(sigma / 2 * (high - low), 0.0)


def max_radius(num_samples: int, alpha: float, sigma: float) -> float:
    """The radius that ``num_samples`` unanimous votes certify: the largest radius possible."""
    return float(certified_radius(clopper_pearson_lower(num_samples, num_samples, alpha), sigma))


def format_radius(radius: float, decimals: int | None = None) -> str:
    """The radius as text with ``decimals`` decimals, rounded towards zero; None: all its decimals."""
    exact = Decimal(repr(float(radius)))
    if decimals is None:
        return f"{exact.normalize():f}"
    return str(exact.quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_DOWN))
