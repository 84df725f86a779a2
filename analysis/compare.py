"""A grid's envelope and its Gaussian baseline, each with the certified models it selects from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from analysis.models import CertifiedGrid, CertifiedModel
from jobs.errors import ConfigError, RecordError
from jobs.wording import counted
from smoothing.accuracy import AccuracyCurve, Envelope, upper_envelope

BASELINE_METHOD = "gaussian"
SELECTION_STEP = 20
"""selection=split selects on every 20th image: the images that the papers certify."""

SelectionMode = Literal["same", "split"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Certified models of one kind, and the envelope that selects among them.

    Attributes:
        name: Their name in tables and legends.
        models: All certified models searched, by label.
        selection_curves: By label, over the images used for selection.
        curves: By label, over the images that are reported.
        is_reported: Whether an image is reported, bool, one per row of a model.
        envelope: The envelope of ``selection_curves``.
    """

    name: str
    models: dict[str, CertifiedModel]
    selection_curves: dict[str, AccuracyCurve]
    curves: dict[str, AccuracyCurve]
    is_reported: npt.NDArray[np.bool_]
    envelope: Envelope

    @property
    def num_images(self) -> int:
        """Number of images reported, N."""
        return next(iter(self.curves.values())).num_images

    def winner_at(self, radius: float) -> CertifiedModel | None:
        """The model selected at a radius; None where none certifies anything."""
        label = self.envelope.winner_at(radius)
        return None if label is None else self.models[label]

    def num_certified_at(self, radii: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Images that the model selected at each radius certifies there, shape (R,)."""
        at = np.atleast_1d(np.asarray(radii, dtype=np.float64))
        labels = [self.envelope.winner_at(float(radius)) for radius in at]
        counts = [
            0 if label is None else int(self.curves[label].num_certified(radius))
            for label, radius in zip(labels, at, strict=True)
        ]
        return np.array(counts, dtype=np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """The envelopes of a grid.

    Attributes:
        grid: The certified models.
        candidates: The SmoothAdv models; if there are none, all models except the baseline's; if there are
            no others, the baseline's.
        baseline: The models trained with Gaussian augmentation; None if there are none, or no others.
        selection: same: selected and reported on all images. split: selected on every 20th image,
            reported on the others.
    """

    grid: CertifiedGrid
    candidates: Candidates
    baseline: Candidates | None
    selection: SelectionMode


def compare(grid: CertifiedGrid, selection: SelectionMode = "same") -> Comparison:
    """Split a grid's models into candidates and baseline, and compute both envelopes.

    Raises:
        RecordError: selection is split, and one of the two parts contains no image.
    """
    baseline = [model for model in grid.models if model.parameters.method == BASELINE_METHOD]
    smoothadv = [model for model in grid.models if model.parameters.method == "smoothadv"]
    # Vanilla adversarial training is a baseline too: it is no substitute for SmoothAdv.
    others = smoothadv or [model for model in grid.models if model.parameters.method != BASELINE_METHOD]
    chosen = others or baseline
    methods = {model.parameters.method for model in chosen}
    name = _METHOD_NAMES.get(methods.pop() or "", "Adversarial") if len(methods) == 1 else "Adversarial"
    return Comparison(
        grid=grid,
        candidates=candidates_of(chosen, name, selection),
        baseline=candidates_of(baseline, "Gaussian", selection) if others and baseline else None,
        selection=selection,
    )


def candidates_of(models: Sequence[CertifiedModel], name: str, selection: SelectionMode = "same") -> Candidates:
    """Some models as candidates, with their envelope.

    Args:
        models: At least one, all certified on the same images.
        name: Their common name.
        selection: As for ``compare``.

    Raises:
        RecordError: As for ``compare``.
    """
    by_label = {model.label: model for model in models}
    everything = np.ones(models[0].indices.size, dtype=bool)
    is_for_selection = models[0].indices % SELECTION_STEP == 0 if selection == "split" else everything
    is_reported = ~is_for_selection if selection == "split" else everything
    if not is_for_selection.any() or not is_reported.any():
        certified = counted(is_for_selection.size, "certified image")
        raise RecordError(
            f"selection=split selects models on the images whose index is a multiple of {SELECTION_STEP} and reports "
            f"on the others, but {int(is_for_selection.sum())} of the {certified} have such an index; "
            "use selection=same"
        )
    selection_curves = {label: _curve(model, is_for_selection) for label, model in by_label.items()}
    return Candidates(
        name=name,
        models=by_label,
        selection_curves=selection_curves,
        curves={label: _curve(model, is_reported) for label, model in by_label.items()},
        is_reported=is_reported,
        envelope=upper_envelope(selection_curves),
    )


def default_radii(comparison: Comparison) -> list[float]:
    """About ten even steps from 0 to the largest certified radius."""
    return round_radii(largest_radius(comparison))


def round_radii(largest: float) -> list[float]:
    """About ten even steps from 0 to ``largest``: paper-like 0, 0.25, 0.5, ..."""
    step = next((step for step in _STEPS if largest / step <= _MAX_ROWS), math.ceil(largest / _MAX_ROWS))
    return even_radii(largest, step)


def even_radii(largest: float, step: float, *, first: float = 0.0) -> list[float]:
    """``first``, first + step, first + 2 step, ... up to ``largest``.

    Raises:
        ConfigError: They are too many for a table.
    """
    if (largest - first) / step >= MAX_RADII:
        raise ConfigError(
            [
                f"radii from {first:g} to {largest:g} in steps of {step:g}: a table holds at most {MAX_RADII} radii; "
                "take a larger step"
            ]
        )
    return [round(first + step * row, 12) for row in range(int((largest - first) / step + 1e-9) + 1)]


def largest_radius(comparison: Comparison) -> float:
    """The largest radius that any candidate certifies; 0 if none certifies anything."""
    breakpoints = comparison.candidates.envelope.breakpoints
    return float(breakpoints[-1]) if breakpoints.size else 0.0


_METHOD_NAMES = {
    "smoothadv": "SmoothAdv",
    "gaussian": "Gaussian",
    "vanilla": "Vanilla PGD",
    "vanilla_noise": "Vanilla PGD + noise",
}
MAX_RADII = 1000
"""Most rows or columns of a table."""

_STEPS = (0.0625, 0.125, 0.25, 0.5, 1.0)
_MAX_ROWS = 12


def _curve(model: CertifiedModel, among: npt.NDArray[np.bool_]) -> AccuracyCurve:
    if among.all():
        return model.curve
    return AccuracyCurve.from_records(model.column("correct")[among], model.column("radius")[among])
