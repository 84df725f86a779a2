"""Second algorithms in 50 digits: slow, plain, and independent of scipy."""

from typing import Any

import mpmath  # type: ignore[import-untyped]

MP = mpmath.mp.clone()
MP.dps = 50

Real = Any
"""A float or a number of MP. Floats enter with the exact value of their 53 bits."""


def binomial_upper_tail(count: int, num_samples: int, probability: Real) -> Real:
    """P(X >= count) for X ~ Binomial(num_samples, probability), summed term by term."""
    p = MP.mpf(probability)
    if count == 0 or p == 1:
        return MP.mpf(1)
    term = MP.binomial(num_samples, count) * p**count * (1 - p) ** (num_samples - count)
    total = term
    for successes in range(count, num_samples):
        term *= p / (1 - p) * (num_samples - successes) / (successes + 1)
        total += term
        if successes > num_samples * p and term < total * MP.mpf(10) ** -40:
            break
    return total


def binomial_lower_tail(count: int, num_samples: int, probability: Real) -> Real:
    """P(X <= count) for X ~ Binomial(num_samples, probability)."""
    return binomial_upper_tail(num_samples - count, num_samples, 1 - MP.mpf(probability))


def normal_quantile(probability: Real) -> Real:
    """Phi^-1(probability)."""
    return MP.sqrt(2) * MP.erfinv(2 * MP.mpf(probability) - 1)
