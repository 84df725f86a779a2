"""At which radii certified accuracy is exact, where sampling stopped as soon as a grid of radii was settled.

With mode=adaptive and stop_rule=grid an image is sampled until no further multiple of radius_step can be gained. At
these multiples its certificate says all that the votes would have said; between them accuracy is a lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from analysis.selection import Parameters

_TOLERANCE = 1e-9  # of a radius that is a multiple but for how floats are written


def exact_step(models: Iterable[Parameters]) -> float | None:
    """The smallest step whose multiples are exact for all models; None where every radius is.

    Returns:
        The least common multiple of their radius steps.
    """
    steps = [Fraction(str(model.radius_step)) for model in models if model.stop_rule == "grid" and model.radius_step]
    if not steps:
        return None
    numerator = math.lcm(*(step.numerator for step in steps))
    return float(Fraction(numerator, math.gcd(*(step.denominator for step in steps))))


def are_exact(radii: npt.ArrayLike, step: float | None) -> npt.NDArray[np.bool_]:
    """Whether accuracy at each radius is exact, and not only a lower bound.

    Args:
        radii: r >= 0, any shape.
        step: As ``exact_step`` gives it.
    """
    at = np.asarray(radii, dtype=np.float64)
    if step is None:
        return np.ones(at.shape, dtype=np.bool_)
    multiples = at / step
    return np.asarray(np.abs(multiples - np.round(multiples)) <= _TOLERANCE)


def exact_radii(largest: float, step: float) -> npt.NDArray[np.float64]:
    """All multiples of a step from 0 to ``largest``, rounded to what they are called."""
    return np.round(step * np.arange(int(largest / step + _TOLERANCE) + 1), 12)
