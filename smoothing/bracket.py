"""What the finite number of noise draws leaves open about certified accuracy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

from smoothing.bounds import RELATIVE_SLACK, clopper_pearson_upper
from smoothing.radius import max_radius

PAPER_LIMIT_IN_SIGMA = 3.0
_PAPER_N, _PAPER_ALPHA = 100_000, 0.001


def possible_radius(
    count_top: npt.ArrayLike, n_used: npt.ArrayLike, n: int, sigma: float, alpha: float
) -> npt.NDArray[np.float64]:
    """The radius that the class's true probability could still give: no larger one is plausible.

    Args:
        count_top: Votes k of the selected class, int, shape (N,).
        n_used: Draws really made, int, 0 to n, shape (N,).
        n: Draws asked for; those not made count as votes for the class.
        sigma: Standard deviation of the noise, > 0.
        alpha: Error probability of each bound, in (0, 1).

    Returns:
        sigma * Phi^-1(p_upper), float64, shape (N,); inf where p_upper is 1, negative where even
        p_upper is below 1/2.

    Guarantee:
        Where sampling was not stopped on the strength of a *lower* bound, the true radius exceeds this
        with probability at most ``alpha``: completing an early stop with votes for the class can only
        raise the count, and the bound rises with the count. Numerical error raises the result.
    """
    votes, drawn = np.asarray(count_top, dtype=np.int64), np.asarray(n_used, dtype=np.int64)
    p_upper = clopper_pearson_upper(votes + (n - drawn), n, alpha)
    reach = np.asarray(sigma * special.ndtri(p_upper), dtype=np.float64)
    with np.errstate(invalid="ignore"):  # inf * 0
        return np.where(np.isinf(reach), reach, reach + np.abs(reach) * RELATIVE_SLACK)


def n_limited_radius(sigma: float, n: int | None, alpha: float | None) -> float:
    """Beyond this radius it is the number of draws that limits certified accuracy, not the model.

    Args:
        sigma: Standard deviation of the noise, > 0.
        n: Draws; None where it is not known.
        alpha: Error probability; None where it is not known.

    Returns:
        3 sigma at the papers' n = 100000 and alpha = 0.001 (or where they are not known); for other
        n and alpha the same share of the radius that unanimous votes certify.
    """
    if n is None or alpha is None:
        return PAPER_LIMIT_IN_SIGMA * sigma
    share = max_radius(n, alpha, sigma) / max_radius(_PAPER_N, _PAPER_ALPHA, sigma)
    return PAPER_LIMIT_IN_SIGMA * sigma * share
