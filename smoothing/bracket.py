"""How far certified accuracy is limited by the finite number of noise draws."""

import functools

import numpy as np
import numpy.typing as npt

from smoothing.bounds import RELATIVE_SLACK, clopper_pearson_upper
from smoothing.radius import max_radius

PAPER_LIMIT_IN_SIGMA = 3.0
_PAPER_N, _PAPER_ALPHA = 100_000, 0.001


def min_possible_count(
    radii: npt.ArrayLike, *, n: int, sigma: float, alpha: float, total_variation: float = 0.0
) -> npt.NDArray[np.int64]:
    """The fewest votes of n that do not rule out a radius.

    With at least as many votes for a class, the upper confidence bound on its probability reaches the
    probability that the radius requires; with fewer votes it does not.

    Args:
        radii: l2 radii r >= 0, any shape.
        n: Draws, >= 1.
        sigma: Standard deviation of the noise, > 0.
        alpha: Error probability of each bound, in (0, 1).
        total_variation: Total variation distance between the drawn noise and the ideal noise.

    Returns:
        min{k: clopper_pearson_upper(k, n, alpha) >= Phi(r / sigma) - total_variation}, int64, the shape
        of ``radii``.

    Guarantee:
        An image whose true radius is at least r has fewer votes with probability at most ``alpha``.
        Numerical error lowers the result. If sampling stopped early, the remaining draws must be counted
        as votes for the class: that can only raise the count.
    """
    from scipy import special  # slow to import

    needed = special.ndtr(np.asarray(radii, dtype=np.float64) / sigma) * (1.0 - RELATIVE_SLACK) - total_variation
    low, high = np.zeros(needed.shape, dtype=np.int64), np.full(needed.shape, n, dtype=np.int64)
    while (low < high).any():  # the bound rises with the count, and reaches 1 at n
        middle = (low + high) // 2
        suffices = clopper_pearson_upper(middle, n, alpha) >= needed
        low, high = np.where(suffices, low, np.minimum(middle + 1, high)), np.where(suffices, middle, high)
    return low


@functools.cache  # called once per model of a grid
def n_limited_radius(sigma: float, n: int | None, alpha: float | None) -> float:
    """The radius beyond which the number of draws limits certified accuracy, not the model.

    Args:
        sigma: Standard deviation of the noise, > 0.
        n: Draws; None if unknown.
        alpha: Error probability; None if unknown.

    Returns:
        3 sigma at the papers' n = 100000 and alpha = 0.001 (or if they are unknown); for other n and
        alpha, the same share of the radius that unanimous votes certify.
    """
    if n is None or alpha is None:
        return PAPER_LIMIT_IN_SIGMA * sigma
    share = max_radius(n, alpha, sigma) / max_radius(_PAPER_N, _PAPER_ALPHA, sigma)
    return PAPER_LIMIT_IN_SIGMA * sigma * share
