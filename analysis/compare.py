"""A grid's envelope beside its Gaussian baseline, and the models it may choose from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from analysis.models import CertifiedGrid, CertifiedModel
from jobs.errors import ConfigError, RecordError
from smoothing.accuracy import AccuracyCurve, Envelope, upper_envelope

BASELINE_METHOD = "gaussian"
SELECTION_STEP = 20
"""selection=split chooses on every so-many-th image: those that the papers certify."""

SelectionMode = Literal["same", "split"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Models of one kind, the envelope that chooses among them, and what the choice is worth.

    Attributes:
        name: What they are called in tables and legends.
        models: All models searched, by label.
        choice_curves: Per label, over the images that the choice is made on.
        curves: Per label, over the images that are reported.
        is_reported: Which images those are, bool, one per row of a model.
        envelope: Of ``choice_curves``.
    """

    name: str
    models: dict[str, CertifiedModel]
    choice_curves: dict[str, AccuracyCurve]
    curves: dict[str, AccuracyCurve]
    is_reported: npt.NDArray[np.bool_]
    envelope: Envelope

    @property
    def num_images(self) -> int:
        """Images that are reported, N."""
        return next(iter(self.curves.values())).num_images

    def winner_at(self, radius: float) -> CertifiedModel | None:
        """The model chosen at a radius; None where none certifies anything there."""
        label = self.envelope.winner_at(radius)
        return None if label is None else self.models[label]

    def num_certified_at(self, radii: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Images that the model chosen at each radius certifies there, shape of ``radii``."""
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
        grid: The models.
        candidates: The SmoothAdv models; where there are none, all but the baseline's; where there are
            no others, those.
        baseline: The Gaussian-augmentation models; None where there are none besides.
        selection: same: chosen and reported on all images. split: chosen on every 20th image, reported
            on the others.
    """

    grid: CertifiedGrid
    candidates: Candidates
    baseline: Candidates | None
    selection: SelectionMode


def compare(grid: CertifiedGrid, selection: SelectionMode = "same") -> Comparison:
    """Split a grid's models into the baseline's and the others, and take both envelopes.

    Raises:
        RecordError: selection is split, and one of the two halves holds no image.
    """
    baseline = [model for model in grid.models if model.parameters.method == BASELINE_METHOD]
    smoothadv = [model for model in grid.models if model.parameters.method == "smoothadv"]
    # Vanilla adversarial training is a baseline too: it does not stand in for SmoothAdv.
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
    """The envelope of some models.

    Args:
        models: At least one, all on the same images.
        name: What they are called together.
        selection: As for ``compare``.
    """
    by_label = {model.label: model for model in models}
    everything = np.ones(models[0].indices.size, dtype=bool)
    is_for_choice = models[0].indices % SELECTION_STEP == 0 if selection == "split" else everything
    is_reported = ~is_for_choice if selection == "split" else everything
    if not is_for_choice.any() or not is_reported.any():
        raise RecordError(
            f"selection=split chooses models on the images whose index is a multiple of {SELECTION_STEP} and reports "
            f"on the others, but {int(is_for_choice.sum())} of the {is_for_choice.size} images certified are such"
        )
    choice_curves = {label: _curve(model, is_for_choice) for label, model in by_label.items()}
    return Candidates(
        name=name,
        models=by_label,
        choice_curves=choice_curves,
        curves={label: _curve(model, is_reported) for label, model in by_label.items()},
        is_reported=is_reported,
        envelope=upper_envelope(choice_curves),
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
            [f"from {first:g} to {largest:g} by {step:g}: too many radii for a table; at most {MAX_RADII} radii"]
        )
    return [round(first + step * row, 12) for row in range(int((largest - first) / step + 1e-9) + 1)]


def largest_radius(comparison: Comparison) -> float:
    """The largest radius that any model certifies; 0 where none does."""
    breakpoints = comparison.candidates.envelope.breakpoints
    return float(breakpoints[-1]) if breakpoints.size else 0.0


_METHOD_NAMES = {
    "smoothadv": "SmoothAdv",
    "gaussian": "Gaussian",
    "vanilla": "Vanilla PGD",
    "vanilla_noise": "Vanilla PGD + noise",
}
MAX_RADII = 1000
"""Rows or columns of a table."""

_STEPS = (0.0625, 0.125, 0.25, 0.5, 1.0)
_MAX_ROWS = 12


def _curve(model: CertifiedModel, among: npt.NDArray[np.bool_]) -> AccuracyCurve:
    if among.all():
        return model.curve
    return AccuracyCurve.from_records(model.column("correct")[among], model.column("radius")[among])
