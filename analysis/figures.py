"""Accuracy curves as figures ready for a paper: column width, vector PDF, readable in grey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from analysis.candidates import Candidates
from analysis.compare import Comparison
from analysis.exact import exact_radii, exact_step, largest_of
from analysis.models import CertifiedModel
from analysis.tables import partial_note

# The palette of Okabe and Ito, distinct for every kind of colour vision, from dark to light. In grey,
# dashes and markers distinguish the curves.
PALETTE = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#999999")
_MARKERS = "osD^vPX*"
_GREY = "#BBBBBB"
PNG_DPI = 300
_STYLE: dict[Any, Any] = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "pdf.fonttype": 42}
_WIDTH_INCHES = 3.5  # width of a column
_MODEL_POINTS = 200  # points per faint curve of one model: finer than its line is wide


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


def envelope_figure(comparison: Comparison) -> Figure:
    """Envelope and baseline as exact step functions, over faint curves of all certified models."""
    curves = [envelope_curve(comparison.candidates, label=f"{comparison.candidates.name}, envelope", color_nr=1)]
    if comparison.baseline is not None:
        curves.append(envelope_curve(comparison.baseline, label="Gaussian", color_nr=2, dashed=True))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_INCHES, 2.6), layout="constrained")
        axes = figure.subplots()
        _draw_models(axes, comparison.grid.models)
        for curve in curves[::-1]:
            _draw(axes, curve, marker=None if curve.is_step else "o")
        _finish(axes, "certified accuracy", max_radius=None)
        axes.legend(frameon=False, loc="upper right")
        if comparison.grid.num_missing:
            axes.text(0.03, 0.05, partial_note(comparison), transform=axes.transAxes, color="#CC0000", weight="bold")
        return figure


def curves_figure(curves: Sequence[Curve], *, max_radius: float | None) -> Figure:
    """Curves with the legend below them; the axis ends at ``max_radius``, or where the curves end."""
    with mpl.rc_context(_STYLE):
        num_rows = (len(curves) + 1) // 2
        figure = Figure(figsize=(_WIDTH_INCHES, 2.4 + 0.16 * num_rows), layout="constrained")
        axes = figure.subplots()
        for number, curve in enumerate(curves):
            _draw(axes, curve, marker=_MARKERS[curve.color_nr % len(_MARKERS)], shift=number / len(curves))
        is_certified = all(curve.is_certified for curve in curves)
        _finish(axes, "certified accuracy" if is_certified else "accuracy", max_radius)
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=7)
        return figure


def probability_figure(frame: pd.DataFrame) -> Figure:
    """The distribution of p_A as steps, one curve per sigma; ``frame`` as from ``statistics.probability_frame``."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_INCHES, 2.4), layout="constrained")
        axes = figure.subplots()
        for number, (sigma, group) in enumerate(frame.groupby("sigma_cert")):
            edges = [*group["p_from"], group["p_to"].iloc[-1]]
            style: dict[str, Any] = {"color": PALETTE[number % len(PALETTE)], "linestyle": ("-", "--", ":")[number % 3]}
            axes.stairs(group["share"], edges, label=f"$\\sigma$ = {sigma:g}", linewidth=1.2, **style)
        axes.set(xlabel="lower bound on the top class's probability", ylabel="share of images", xlim=(0, 1))
        axes.legend(frameon=False, loc="upper left")
        return figure


def envelope_curve(candidates: Candidates, *, label: str, color_nr: int, dashed: bool = False) -> Curve:
    """An envelope as a curve, down to zero at its end; where it is exact at some radii only, as points at these."""
    envelope, step = candidates.envelope, candidates.exact_step
    if step is not None:
        radii = exact_radii(largest_of(envelope.breakpoints) + step, step)
        label = f"{label} (at multiples of {step:g})"
        return Curve(
            label=label, radii=radii, accuracies=envelope(radii), is_step=False, color_nr=color_nr, dashed=dashed
        )
    radii = np.concatenate([[0.0], envelope.breakpoints, envelope.breakpoints[-1:]])
    accuracies = envelope(radii)
    accuracies[-1:] = 0.0  # drops to zero above the last radius
    return Curve(label=label, radii=radii, accuracies=accuracies, is_step=True, color_nr=color_nr, dashed=dashed)


def save_figure(figure: Figure, path: Path, file_format: Literal["png", "pdf"]) -> None:
    """Write a figure in a given format. PDF files embed their fonts; the same figure gives the same bytes."""
    metadata = {"CreationDate": None} if file_format == "pdf" else None
    with mpl.rc_context(_STYLE):
        figure.savefig(path, format=file_format, dpi=PNG_DPI, metadata=metadata)
    figure.set_layout_engine("none")  # in another format it keeps its layout, which takes as long as drawing


def _draw(axes: Axes, curve: Curve, *, marker: str | None = None, shift: float = 0.0) -> None:
    style: dict[str, Any] = {
        "color": PALETTE[curve.color_nr % len(PALETTE)],
        "linewidth": 1.2,
        "label": curve.label,
        "linestyle": (0, (4, 2)) if curve.dashed else "-",
    }
    if marker is not None and not curve.is_step and len(curve.radii) < _MODEL_POINTS:
        style |= {"marker": marker, "markersize": 3}
    elif marker is not None:
        # Markers of different curves are shifted so that they do not cover each other.
        style |= {"marker": marker, "markersize": 3, "markevery": (0.1 * shift, 0.1), "markeredgewidth": 0.6}
        style["markerfacecolor"] = "white" if curve.dashed else style["color"]
    axes.plot(curve.radii, curve.accuracies, drawstyle="steps-pre" if curve.is_step else "default", **style)


def _finish(axes: Axes, ylabel: str, max_radius: float | None) -> None:
    axes.set(xlabel="\u2113\u2082 radius", ylabel=ylabel, ylim=(0, 1.02))
    axes.set_xlim(0, max_radius)
    axes.grid(color="#EEEEEE", linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_models(axes: Axes, models: Sequence[CertifiedModel]) -> None:
    largest = max(largest_of(model.curve.radii) for model in models)
    step = exact_step(model.parameters for model in models)
    radii = np.linspace(0.0, largest, _MODEL_POINTS) if step is None else exact_radii(largest + step, step)
    lines = [np.column_stack([radii, model.curve(radii)]) for model in models]
    axes.add_collection(LineCollection(lines, colors=_GREY, linewidths=0.4, alpha=0.7, label="certified models"))
