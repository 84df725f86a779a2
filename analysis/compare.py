"""A grid's envelope beside its Gaussian baseline, radius by radius."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.load import CertifiedGrid, Model
from smoothing.accuracy import Envelope, upper_envelope
from smoothing.bounds import two_sided_interval

BASELINE_METHOD = "gaussian"


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """The envelopes of a grid.

    Attributes:
        grid: The models.
        name: What the models of ``envelope`` are called in tables and legends.
        envelope: Over all models but the baseline's (over those where there are no others).
        baseline: Over the Gaussian-augmentation models; None where there are none besides.
    """

    grid: CertifiedGrid
    name: str
    envelope: Envelope
    baseline: Envelope | None


def compare(grid: CertifiedGrid) -> Comparison:
    """Split a grid's models into the baseline's and the others, and take both envelopes."""
    baseline = [model for model in grid.models if model.run.train.method == BASELINE_METHOD]
    others = [model for model in grid.models if model.run.train.method != BASELINE_METHOD]
    chosen = others or baseline
    methods = {model.run.train.method for model in chosen}
    return Comparison(
        grid=grid,
        name=_METHOD_NAMES.get(methods.pop(), "Adversarial") if len(methods) == 1 else "Adversarial",
        envelope=_envelope(chosen),
        baseline=_envelope(baseline) if others and baseline else None,
    )


def default_radii(comparison: Comparison) -> list[float]:
    """About ten even steps from 0 to the largest certified radius: paper-like 0, 0.25, 0.5, ..."""
    largest = float(comparison.envelope.breakpoints[-1]) if comparison.envelope.breakpoints.size else 0.0
    step = next(step for step in _STEPS if largest / step <= _MAX_ROWS or step == _STEPS[-1])
    return [step * row for row in range(int(largest / step) + 1)]


def envelope_frame(comparison: Comparison, radii: Sequence[float], confidence: float) -> pd.DataFrame:
    """One row per radius: counts, accuracies, exact intervals over test images, winning models.

    Args:
        comparison: The envelopes.
        radii: Where to evaluate them.
        confidence: Of the two-sided Clopper-Pearson interval of each cell, taken by itself. It does
            not account for the choice of the best model on the same images.

    Returns:
        Columns radius, num_images, and for the envelope and, with the prefix ``baseline_``, the
        baseline: num_certified, accuracy, lower, upper, model; then gain.
    """
    at = np.asarray(radii, dtype=np.float64)
    frame = pd.DataFrame({"radius": at, "num_images": comparison.envelope.num_images})
    _add_envelope(frame, comparison.envelope, confidence, prefix="")
    if comparison.baseline is not None:
        _add_envelope(frame, comparison.baseline, confidence, prefix="baseline_")
        frame["gain"] = frame["accuracy"] - frame["baseline_accuracy"]
    return frame


_METHOD_NAMES = {"smoothadv": "SmoothAdv", "gaussian": "Gaussian"}
_STEPS = (0.0625, 0.125, 0.25, 0.5, 1.0)
_MAX_ROWS = 12


def _envelope(models: Sequence[Model]) -> Envelope:
    return upper_envelope({model.label: model.curve for model in models})


def _add_envelope(frame: pd.DataFrame, envelope: Envelope, confidence: float, *, prefix: str) -> None:
    radii = frame["radius"].to_numpy()
    counts = envelope.num_certified_at(radii)
    lower, upper = two_sided_interval(counts, envelope.num_images, 1 - confidence)
    frame[f"{prefix}num_certified"] = counts
    frame[f"{prefix}accuracy"] = counts / envelope.num_images
    frame[f"{prefix}lower"], frame[f"{prefix}upper"] = lower, upper
    frame[f"{prefix}model"] = [envelope.winner_at(float(radius)) or "" for radius in radii]
