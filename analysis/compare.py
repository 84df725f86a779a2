"""A grid's envelope and its Gaussian baseline, each with the certified models it selects from."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.candidates import Candidates, SeedMode, SelectionMode, candidates_of, exact_radii, exact_step, largest_of
from analysis.models import CertifiedGrid
from jobs.errors import ConfigError

BASELINE_METHOD = "gaussian"


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """The envelopes of a grid."""

    grid: CertifiedGrid  # the certified models
    candidates: Candidates  # the SmoothAdv models, else all but the baseline's, else the baseline's
    baseline: Candidates | None  # the models trained with Gaussian augmentation; None if there are none, or no others
    seeds: SeedMode  # mean: seeds of one recipe are one candidate. best: each is one

    @property
    def exact_step(self) -> float | None:
        """The step whose multiples are exact for all models compared; None if every radius is exact."""
        compared = [self.candidates, *([self.baseline] if self.baseline else [])]
        return exact_step(model.parameters for one in compared for model in one.models)


def compare(grid: CertifiedGrid, selection: SelectionMode = "same", seeds: SeedMode = "mean") -> Comparison:
    """A grid's candidates and baseline, as ``candidates_of`` makes them."""
    baseline = [model for model in grid.models if model.parameters.method == BASELINE_METHOD]
    smoothadv = [model for model in grid.models if model.parameters.method == "smoothadv"]
    # Vanilla adversarial training is a baseline too and does not replace SmoothAdv.
    others = smoothadv or [model for model in grid.models if model.parameters.method != BASELINE_METHOD]
    chosen = others or baseline
    methods = sorted({model.parameters.method or "unknown method" for model in chosen})
    name = METHOD_NAMES.get(methods[0], methods[0]) if len(methods) == 1 else f"{len(methods)} methods"
    return Comparison(
        grid=grid,
        candidates=candidates_of(chosen, name, selection, seeds),
        baseline=candidates_of(baseline, "Gaussian", selection, seeds) if others and baseline else None,
        seeds=seeds,
    )


def default_radii(comparison: Comparison) -> list[float]:
    """About ten even steps from 0 to the largest certified radius, all exact."""
    return round_radii(largest_radius(comparison), comparison.exact_step)


def round_radii(largest: float, exact: float | None = None) -> list[float]:
    """About ten even steps from 0 to at most ``largest``: paper-like 0, 0.25, ... or multiples of ``exact`` alone."""
    if exact is not None:
        every = math.ceil(largest / (_MAX_ROWS * exact)) or 1
        return [float(radius) for radius in exact_radii(largest, exact)[::every]]
    step = next((step for step in _STEPS if largest / step <= _MAX_ROWS), math.ceil(largest / _MAX_ROWS))
    return even_radii(largest, step)


def even_radii(largest: float, step: float, *, first: float = 0.0) -> list[float]:
    """``first``, first + step, ... up to ``largest``. Raises ConfigError if there are too many for a table."""
    if (largest - first) / step >= MAX_RADII:
        raise ConfigError(
            f"radii from {first:g} to {largest:g} in steps of {step:g}: a table holds at most {MAX_RADII} radii; "
            "take a larger step"
        )
    return [round(first + step * row, 12) for row in range(int((largest - first) / step + 1e-9) + 1)]


def largest_radius(comparison: Comparison) -> float:
    """The largest radius that any candidate certifies; 0 if none certifies anything."""
    return largest_of(comparison.candidates.envelope.breakpoints)


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """One line of a figure."""

    label: str  # label in the legend
    radii: npt.NDArray[np.float64]  # ascending, float64, shape (P,)
    accuracies: npt.NDArray[np.float64]  # in [0, 1], float64, shape (P,)
    is_step: bool  # whether it is an exact step function, continuous from the left, or points joined by lines
    color_nr: int  # position in the palette; a dashed curve may share the colour of a solid one
    dashed: bool = False  # whether the line is dashed
    is_certified: bool = True  # whether it is certified accuracy, and not accuracy under attack


def envelope_curve(candidates: Candidates, *, label: str, color_nr: int, dashed: bool = False) -> Curve:
    """An envelope as a curve that ends at zero; if it is exact only at some radii, as points at these radii."""
    envelope, step = candidates.envelope, candidates.exact_step
    if step is None:
        radii = np.concatenate([[0.0], envelope.breakpoints, envelope.breakpoints[-1:]])
    else:
        radii = exact_radii(largest_of(envelope.breakpoints) + step, step)
        label = f"{label} (at multiples of {step:g})"
    accuracies = envelope(radii)
    accuracies[-1:] = 0.0  # beyond the last breakpoint
    is_step = step is None
    return Curve(label=label, radii=radii, accuracies=accuracies, is_step=is_step, color_nr=color_nr, dashed=dashed)


METHOD_NAMES = {
    "smoothadv": "SmoothAdv",
    "gaussian": "Gaussian",
    "vanilla": "Vanilla PGD",
    "vanilla_noise": "Vanilla PGD + noise",
}
MAX_RADII = 1000
"""Most rows or columns of a table."""

_STEPS = (0.0625, 0.125, 0.25, 0.5, 1.0)
_MAX_ROWS = 12
