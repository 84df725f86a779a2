"""Accuracy curves as figures ready for a paper: column width, vector PDF, readable in grey."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from analysis.candidates import exact_radii, exact_step, largest_of
from analysis.compare import Comparison, Curve, envelope_curve
from analysis.statistics import Frame
from analysis.tables import partial_note
from jobs.atomic import write_atomically

# The palette of Okabe and Ito, distinct for every kind of colour vision, from dark to light. In grey,
# dashes and markers distinguish the curves.
PALETTE = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#999999")
_MARKERS = "osD^vPX*"
_GREY = "#BBBBBB"
PNG_DPI = 300
# Fonts as TrueType, which journals ask for; matplotlib 3.11 cuts the fonts of PDF files into parts by what it says of
# PostScript, and each part takes long.
_FONTS = {"pdf.fonttype": 42, "ps.fonttype": 42}
_STYLE: dict[Any, Any] = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, **_FONTS}
_WIDTH_INCHES = 3.5  # width of a column
_MODEL_POINTS = 200  # points per faint curve of one model: finer than its line is wide


def envelope_figure(comparison: Comparison) -> Figure:
    """Envelope and baseline as exact step functions, over faint curves of all certified models."""
    curves = [envelope_curve(comparison.candidates, label=f"{comparison.candidates.name}, envelope", color_nr=1)]
    if comparison.baseline is not None:
        curves.append(envelope_curve(comparison.baseline, label="Gaussian", color_nr=2, dashed=True))
    models = comparison.grid.models
    largest = max(largest_of(model.curve.radii) for model in models)
    step = exact_step(model.parameters for model in models)
    radii = np.linspace(0.0, largest, _MODEL_POINTS) if step is None else exact_radii(largest + step, step)
    lines = [np.column_stack([radii, model.curve(radii)]) for model in models]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_INCHES, 2.6), layout="constrained")
        axes = figure.subplots()
        axes.add_collection(LineCollection(lines, colors=_GREY, linewidths=0.4, alpha=0.7, label="certified models"))
        for curve in curves[::-1]:
            _draw(axes, curve, marker=None if curve.is_step else "o")
        _finish(axes, "certified accuracy", max_radius=None)
        axes.legend(frameon=False, loc="upper right")
        if comparison.grid.missing:
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


def probability_figure(frame: Frame) -> Figure:
    """The distribution of p_A as steps, one curve per sigma; ``frame`` as from ``statistics.probability_frame``."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_INCHES, 2.4), layout="constrained")
        axes = figure.subplots()
        for number, sigma in enumerate(np.unique(frame["sigma_cert"])):
            is_of_it = frame["sigma_cert"] == sigma
            edges = [*frame["p_from"][is_of_it], frame["p_to"][-1]]
            style: dict[str, Any] = {"color": PALETTE[number % len(PALETTE)], "linestyle": ("-", "--", ":")[number % 3]}
            axes.stairs(frame["share"][is_of_it], edges, label=f"\u03c3 = {sigma:g}", linewidth=1.2, **style)
        axes.set(xlabel="lower bound on the top class's probability", ylabel="share of images", xlim=(0, 1))
        axes.legend(frameon=False, loc="upper left")
        return figure


def write_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG and PDF; returns their paths. PDF files embed their fonts. Equal figures, equal bytes."""
    metadata: dict[str, dict[str, Any]] = {"png": {}, "pdf": {"CreationDate": None}}
    with mpl.rc_context(_STYLE):
        for suffix, of_file in metadata.items():
            save = partial(figure.savefig, format=suffix, dpi=PNG_DPI, metadata=of_file)
            write_atomically(folder / f"{name}.{suffix}", save)
            figure.set_layout_engine("none")  # in another format it keeps its layout, which takes as long as drawing
    return [folder / f"{name}.{suffix}" for suffix in metadata]


def _draw(axes: Axes, curve: Curve, *, marker: str | None = None, shift: float = 0.0) -> None:
    style: dict[str, Any] = {
        "color": PALETTE[curve.color_nr % len(PALETTE)],
        "linewidth": 1.2,
        "label": curve.label,
        "linestyle": (0, (4, 2)) if curve.dashed else "-",
    }
    if marker is not None:
        style |= {"marker": marker, "markersize": 3}
        if curve.is_step or len(curve.radii) >= _MODEL_POINTS:  # shifted, so that curves do not cover their markers
            style |= {"markevery": (0.1 * shift, 0.1), "markeredgewidth": 0.6}
            style["markerfacecolor"] = "white" if curve.dashed else style["color"]
    axes.plot(curve.radii, curve.accuracies, drawstyle="steps-pre" if curve.is_step else "default", **style)


def _finish(axes: Axes, ylabel: str, max_radius: float | None) -> None:
    axes.set(xlabel="\u2113\u2082 radius", ylabel=ylabel, ylim=(0, 1.02))
    axes.set_xlim(0, max_radius)
    axes.grid(color="#EEEEEE", linewidth=0.6)
    axes.set_axisbelow(True)
