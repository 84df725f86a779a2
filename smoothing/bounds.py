"""Exact binomial confidence bounds (Clopper and Pearson 1934), their inverse, and PREDICT's test.

Every bound errs, if at all, on the safe side: scipy's inverse of the incomplete beta function is
accurate to a few units in the last place, and each bound is loosened by ``RELATIVE_SLACK``, which is
orders of magnitude more than that and orders of magnitude less than any measurement resolves.
"""

import functools
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

RELATIVE_SLACK = 1e-12

MIN_ALPHA = 1e-30
"""Smallest error probability of a bound. Far below it scipy's inverse of the incomplete beta function errs upwards
and may be nan; nothing sensible needs less."""

Counts = npt.ArrayLike
FloatArray = npt.NDArray[np.float64]


def clopper_pearson_lower(
    counts: Counts, num_samples: Counts, alpha: float, *, total_variation: float = 0.0
) -> FloatArray:
    """One-sided lower confidence bound for a binomial probability.

    Args:
        counts: Successes k, integers in [0, num_samples]; any shape that broadcasts.
        num_samples: Trials n, integers >= 1.
        alpha: Error probability, at least MIN_ALPHA and below 1.
        total_variation: Total variation distance between a trial as drawn and the ideal one, whose
            probability is bounded; subtracted from the bound.

    Returns:
        The bound for each k, in [0, 1); 0 where k = 0. Float64, the broadcast shape.

    Raises:
        ValueError: An argument is outside its range.

    Guarantee:
        For K ~ Binomial(n, p) with n fixed beforehand, P(bound(K) > p) <= alpha for every p.
        Numerical error lowers the bound.

    Source:
        Cohen et al. 2019, CERTIFY's LowerConfBound: the alpha quantile of Beta(k, n - k + 1).
    """
    from scipy import special  # slow to import

    count, total = _checked(counts, num_samples, alpha)
    # betaincinv is undefined at k = 0, where the bound is 0; any k >= 1 can be evaluated instead.
    quantile = special.betaincinv(np.maximum(count, 1), total - np.maximum(count, 1) + 1, alpha)
    bound: FloatArray = np.where(count == 0, 0.0, quantile * (1.0 - RELATIVE_SLACK))
    return np.maximum(bound - total_variation, 0.0)


def clopper_pearson_upper(counts: Counts, num_samples: Counts, alpha: float) -> FloatArray:
    """One-sided upper confidence bound for a binomial probability; arguments as for ``clopper_pearson_lower``.

    Returns:
        The bound for each k, in (0, 1]; 1 where k = n. Float64, the broadcast shape.

    Guarantee:
        For K ~ Binomial(n, p) with n fixed beforehand, P(bound(K) < p) <= alpha for every p.
        Numerical error raises the bound.
    """
    count, total = _checked(counts, num_samples, alpha)
    # Near 1 the subtraction rounds away the slack of a tiny lower bound: hence one step up.
    upper: FloatArray = np.nextafter(1.0 - clopper_pearson_lower(total - count, total, alpha), 1.0)
    return upper


def min_count_for(probability: float, num_samples: int, alpha: float) -> int | None:
    """Inverse of the lower bound: the fewest successes that prove ``probability``.

    Args:
        probability: The bound to reach, in (0, 1).
        num_samples: Trials n >= 1.
        alpha: Error probability in (0, 1).

    Returns:
        The smallest k with ``clopper_pearson_lower(k, n, alpha) >= probability``, or None if
        even k = n does not reach it.

    Raises:
        ValueError: An argument is outside its range.
    """
    if not 0 < probability < 1:
        raise ValueError(f"probability must lie in (0, 1), got {probability!r}")
    if clopper_pearson_lower(num_samples, num_samples, alpha) < probability:
        return None
    below, reached = 0, num_samples  # the bound is monotone in k: bisect
    while reached - below > 1:
        middle = (below + reached) // 2
        if clopper_pearson_lower(middle, num_samples, alpha) >= probability:
            reached = middle
        else:
            below = middle
    return reached


@functools.cache  # called once per model of a grid, with the same arguments
def can_certify(num_samples: int, alpha: float) -> bool:
    """Whether ``num_samples`` unanimous votes would certify anything at error ``alpha``."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1), got {alpha!r}")
    # The lower bound of n unanimous votes, in closed form.
    return bool(alpha ** (1 / num_samples) * (1.0 - RELATIVE_SLACK) >= 0.5)


def min_samples_to_certify(alpha: float) -> int:
    """The smallest n with ``can_certify(n, alpha)``: the first with alpha ** (1 / n) > 1/2."""
    return next(num_samples for num_samples in itertools.count(1) if can_certify(num_samples, alpha))


def two_sided_interval(counts: Counts, num_samples: Counts, alpha: float) -> tuple[FloatArray, FloatArray]:
    """Exact two-sided interval: both one-sided Clopper-Pearson bounds at ``alpha / 2``.

    Returns:
        (lower, upper), each float64 of the broadcast shape.

    Guarantee:
        The interval misses the true probability with probability at most ``alpha``.
    """
    lower = clopper_pearson_lower(counts, num_samples, alpha / 2)
    return lower, clopper_pearson_upper(counts, num_samples, alpha / 2)


def top_class_p_value(count_top: int, count_second: int) -> float:
    """Two-sided binomial p-value, in [0, 1], for "the two leading classes are equally likely"; 1 without votes.

    Args:
        count_top: Votes of the leading class, >= 0.
        count_second: Votes of the runner-up, >= 0.

    Source:
        Cohen et al. 2019, PREDICT (Hung and Fithian 2019 for the ranking guarantee).
    """
    from scipy import special

    total = count_top + count_second
    if total == 0:
        return 1.0
    # The binomial with probability 1/2 is symmetric, so both tails are twice the tail of the larger count.
    # (The same number as scipy.stats.binomtest, without importing scipy.stats, which takes most of a second.)
    larger = max(count_top, count_second)
    return min(1.0, 2.0 * float(special.betainc(larger, total - larger + 1, 0.5)))


def _checked(counts: Counts, num_samples: Counts, alpha: float) -> tuple[Any, Any]:
    count, total = np.broadcast_arrays(np.asarray(counts), np.asarray(num_samples))
    if not MIN_ALPHA <= alpha < 1:
        raise ValueError(f"alpha must lie in [{MIN_ALPHA}, 1), got {alpha!r}")
    if not (np.issubdtype(count.dtype, np.integer) and np.issubdtype(total.dtype, np.integer)):
        raise ValueError(f"counts must be integers, got {count.dtype} of {total.dtype}")
    if total.size and (total.min() < 1 or count.min() < 0 or (count > total).any()):
        raise ValueError(f"need 0 <= counts <= num_samples and num_samples >= 1, got {counts!r} of {num_samples!r}")
    return count.astype(np.int64), total.astype(np.int64)
