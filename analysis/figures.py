"""The envelope as a figure that can go into a paper as it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.compare import Comparison
from analysis.load import Model
from analysis.tables import partial_note
from smoothing.accuracy import AccuracyCurve, Envelope

# Okabe and Ito's palette: told apart with every kind of colour vision; the dashes also in grey.
_BLUE, _VERMILLION, _GREY = "#0072B2", "#D55E00", "#BBBBBB"
_STYLE: dict[Any, Any] = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "pdf.fonttype": 42}
_SIZE_INCHES = (3.5, 2.6)  # the width of a column


def envelope_figure(comparison: Comparison) -> Figure:
    """Envelope and baseline as exact step functions over faint curves of the single models."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        axes = figure.subplots()
        _draw_models(axes, comparison.grid.models)
        if comparison.baseline is not None:
            _draw_envelope(axes, comparison.baseline.envelope, label="Gaussian", color=_VERMILLION, dashes=(4, 2))
        _draw_envelope(
            axes, comparison.contenders.envelope, label=f"{comparison.contenders.name}, envelope", color=_BLUE
        )
        axes.set(xlabel=r"$\ell_2$ radius", ylabel="certified accuracy", ylim=(0, 1.02))
        axes.set_xlim(0, None)
        axes.grid(color="#EEEEEE", linewidth=0.6)
        axes.legend(frameon=False, loc="upper right")
        if comparison.grid.num_missing:
            axes.text(0.03, 0.05, partial_note(comparison), transform=axes.transAxes, color="#CC0000", weight="bold")
        return figure


def save_figure(figure: Figure, path: Path, file_format: Literal["png", "pdf"]) -> None:
    """Write a figure, whatever the path's suffix. Fonts are embedded in PDF."""
    with mpl.rc_context(_STYLE):
        figure.savefig(path, format=file_format, dpi=300)


def _draw_models(axes: Axes, models: Sequence[Model]) -> None:
    for model_nr, model in enumerate(models):
        radii, accuracies = _steps_of_curve(model.curve)
        label = "single models" if model_nr == 0 else None
        axes.step(radii, accuracies, where="pre", color=_GREY, linewidth=0.4, alpha=0.7, label=label)


def _draw_envelope(
    axes: Axes, envelope: Envelope, *, label: str, color: str, dashes: tuple[int, int] | None = None
) -> None:
    radii = np.concatenate([[0.0], envelope.breakpoints, envelope.breakpoints[-1:]])
    accuracies = envelope(radii)
    accuracies[-1:] = 0.0  # the fall to zero above the last radius
    (line,) = axes.step(radii, accuracies, where="pre", color=color, linewidth=1.4, label=label)
    if dashes:
        line.set_dashes(dashes)


def _steps_of_curve(curve: AccuracyCurve) -> tuple[np.ndarray, np.ndarray]:
    radii = np.concatenate([[0.0], np.unique(curve.radii), curve.radii[-1:]])
    accuracies = curve(radii)
    accuracies[-1:] = 0.0
    return radii, accuracies
