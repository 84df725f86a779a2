"""The candidates of an envelope, and the radii at which their certified accuracy is exact.

Models that differ only in their seed are one candidate. With mode=adaptive and stop_rule=grid, an image is sampled
until no further multiple of radius_step can be certified: accuracy is exact there, between them a lower bound.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from analysis.models import CertifiedModel
from analysis.selection import Parameters
from jobs.errors import RecordError
from jobs.wording import counted
from smoothing.accuracy import AccuracyCurve, Envelope, upper_envelope

SELECTION_STEP = 20
"""selection=split selects on every 20th image: the images that the papers certify."""

SelectionMode = Literal["same", "split"]
SeedMode = Literal["mean", "best"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """One certified model, or several that differ only in their seed."""

    label: str  # short name, unique among the candidates
    replicates: tuple[CertifiedModel, ...]  # its models, at least one, all certified on the same images

    @property
    def parameters(self) -> Parameters:
        """The parameters of the first replicate; the others differ only in the seed."""
        return self.replicates[0].parameters

    @property
    def name(self) -> str:
        """The label, with the number of seeds if there are several."""
        count = len(self.replicates)
        return self.label if count == 1 else f"{self.label} ({count} seeds)"


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Candidates of one kind, and the envelope that selects among them."""

    name: str  # their name in tables and legends
    by_label: dict[str, Candidate]  # all candidates searched
    is_reported: npt.NDArray[np.bool_]  # whether an image is reported, one per row of a model

    @property
    def models(self) -> list[CertifiedModel]:
        """All models searched, including replicates."""
        return [model for candidate in self.by_label.values() for model in candidate.replicates]

    @property
    def num_images(self) -> int:
        """Number of images reported, N."""
        return int(np.count_nonzero(self.is_reported))

    @property
    def is_for_selection(self) -> npt.NDArray[np.bool_]:
        """Whether an image is used for selection: all of them, or those that are not reported."""
        return self.is_reported if self.is_reported.all() else ~self.is_reported

    @cached_property
    def exact_step(self) -> float | None:
        """As the function of this name, for all candidates."""
        return exact_step(model.parameters for model in self.models)

    @cached_property
    def envelope(self) -> Envelope:
        """The envelope of the selection curves."""
        return upper_envelope(self.selection_curves)

    @cached_property
    def selection_curves(self) -> dict[str, AccuracyCurve]:
        """By label, the mean curve over the images used for selection."""
        return self._mean_curves(self.is_for_selection)

    @cached_property
    def curves(self) -> dict[str, AccuracyCurve]:
        """By label, the mean curve over the images reported."""
        return self.selection_curves if self.is_reported.all() else self._mean_curves(self.is_reported)

    def winner_at(self, radius: float) -> Candidate | None:
        """The candidate selected at a radius; None if none certifies anything there."""
        label = self.envelope.winner_at(radius)
        return None if label is None else self.by_label[label]

    def accuracy_at(self, radii: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Accuracy on the images reported of the candidate selected at each radius, shape (R,)."""
        winners = [(self.winner_at(radius), radius) for radius in np.atleast_1d(radii).tolist()]
        return np.array([float(self.curves[one.label](radius)) if one else 0.0 for one, radius in winners])

    def _mean_curves(self, among: npt.NDArray[np.bool_]) -> dict[str, AccuracyCurve]:
        """Mean curves over replicates; the number of images does not depend on the number of seeds."""
        common = math.lcm(*(len(candidate.replicates) for candidate in self.by_label.values()))
        curves = {}
        for label, candidate in self.by_label.items():
            parts = [model.among(among).curve for model in candidate.replicates]
            curves[label] = parts[0]
            if common > 1:
                pooled = np.sort(np.repeat(np.concatenate([part.radii for part in parts]), common // len(parts)))
                curves[label] = AccuracyCurve(radii=pooled, num_images=common * parts[0].num_images)
        return curves


def candidates_of(
    models: Sequence[CertifiedModel], name: str, selection: SelectionMode = "same", seeds: SeedMode = "mean"
) -> Candidates:
    """The candidates among models that are certified on the same images, by their common name.

    selection=same: selected and reported on all images; split: selected on every 20th, reported on the others.
    seeds=mean: those of one recipe are one candidate; best: each is one. Raises RecordError if split leaves no images.
    """
    is_reported = np.ones(models[0].indices.size, dtype=bool)
    if selection == "split":
        is_reported = models[0].indices % SELECTION_STEP != 0
        if is_reported.all() or not is_reported.any():
            selected = f"{int((~is_reported).sum())} of the {counted(is_reported.size, 'certified image')}"
            raise RecordError(
                f"selection=split selects models on the images whose index is a multiple of {SELECTION_STEP} and "
                f"reports on the others, but {selected} have such an index; use selection=same"
            )
    groups: dict[str, list[CertifiedModel]] = {}
    for model in models:
        groups.setdefault(model.label if seeds == "best" else model.recipe_label, []).append(model)
    return Candidates(
        name=name,
        by_label={label: Candidate(label=label, replicates=tuple(group)) for label, group in groups.items()},
        is_reported=is_reported,
    )


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
