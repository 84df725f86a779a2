"""The radii at which certified accuracy is exact if sampling was stopped by a grid of radii.

With mode=adaptive and stop_rule=grid, an image is sampled until no further multiple of radius_step can be certified.
At these multiples, certified accuracy is what all votes would have given; between them it is a lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from analysis.selection import Parameters

_TOLERANCE = 1e-9  # for radii that are multiples up to floating-point rounding


def exact_step(models: Iterable[Parameters]) -> float | None:
    """The least common multiple of the models' radius steps: accuracy is exact there. None if it is everywhere."""
    steps = [Fraction(str(model.radius_step)) for model in models if model.stop_rule == "grid" and model.radius_step]
    if not steps:
        return None
    numerator = math.lcm(*(step.numerator for step in steps))
    return float(Fraction(numerator, math.gcd(*(step.denominator for step in steps))))


def are_exact(radii: npt.ArrayLike, step: float | None) -> npt.NDArray[np.bool_]:
    """Whether accuracy at each radius, of any shape, is exact with a step, or only a lower bound."""
    at = np.asarray(radii, dtype=np.float64)
    if step is None:
        return np.ones(at.shape, dtype=np.bool_)
    multiples = at / step
    return np.asarray(np.abs(multiples - np.round(multiples)) <= _TOLERANCE)


def largest_of(radii: npt.NDArray[np.float64]) -> float:
    """The largest of ascending radii; 0 if there are none."""
    return float(radii[-1]) if radii.size else 0.0


def exact_radii(largest: float, step: float) -> npt.NDArray[np.float64]:
    """All multiples of a step from 0 to ``largest``, rounded to 12 decimals."""
    return np.round(step * np.arange(int(largest / step + _TOLERANCE) + 1), 12)
