"""The envelope's table for the screen, for Markdown, for LaTeX, and as CSV."""

from __future__ import annotations

import math
from typing import Literal

import pandas as pd
from tabulate import tabulate

from analysis.compare import SELECTION_STEP, Comparison
from analysis.statistics import Levels
from smoothing.radius import format_radius

TableFormat = Literal["simple", "pipe", "latex_booktabs"]

N_LIMITED = "*"
"""Behind an accuracy that the number of draws limits, not the model."""


def envelope_table(comparison: Comparison, frame: pd.DataFrame, table_format: TableFormat) -> str:
    """The table as text: accuracies in per cent, intervals rounded outwards; the paper's beside them if it has any."""
    headers = ["r", comparison.candidates.name, "model"]
    columns = [[format_radius(radius) for radius in frame["radius"]], _cells(frame, ""), list(frame["model"])]
    if comparison.baseline is not None:
        headers += ["Gaussian", "model", "gain"]
        columns += [
            _cells(frame, "baseline_"),
            list(frame["baseline_model"]),
            [f"{100 * gain:+.1f}" for gain in frame["gain"]],
        ]
    if frame["printed"].notna().any():
        headers.append("paper")
        columns.append(_printed_cells(frame))
    rows = list(zip(*columns, strict=True))
    return tabulate(rows, headers=headers, tablefmt=table_format, disable_numparse=True)


def statistics_table(comparison: Comparison, frame: pd.DataFrame, table_format: TableFormat) -> str:
    """What is behind each cell of the envelope, in per cent; a dash where the records do not say."""
    headers = [
        "r",
        comparison.candidates.name,
        "votes allow",
        "all at once",
        "high prob.",
        "best single",
        "avg. r",
        "abstains",
    ]
    rows = [
        [
            format_radius(row["radius"]),
            f"{100 * row['accuracy']:.1f}",
            _percent(row["monte_carlo_upper"], "<= {:.1f}", up=True),
            f"[{_down(row['band_lower']):.1f}, {_up(row['band_upper']):.1f}]",
            _percent(row["high_probability"], ">= {:.1f}"),
            f"{100 * row['single_accuracy']:.1f}",
            "-" if math.isnan(row["average_radius"]) else format_radius(row["average_radius"], 3),
            "-" if math.isnan(row["abstention_rate"]) else f"{100 * row['abstention_rate']:.1f}",
        ]
        for row in frame.to_dict("records")
    ]
    return tabulate(rows, headers=headers, tablefmt=table_format, disable_numparse=True)


def caption(comparison: Comparison, frame: pd.DataFrame, levels: Levels) -> str:
    """What the reader of table or figure must know, in a few sentences."""
    grid, first = comparison.grid, comparison.grid.models[0].parameters
    num_searched, num_images = len(comparison.candidates.models), comparison.candidates.num_images
    how = (
        "chosen on the same images"
        if comparison.selection == "same"
        else f"chosen on the {comparison.candidates.envelope.num_images} other images certified, "
        f"every {SELECTION_STEP}th of the {first.split} split"
    )
    settings = (
        "n and alpha are not recorded"
        if first.n is None or first.alpha is None
        else f"n={first.n}, alpha={first.alpha}"
    )
    sentences = [
        f"Certified accuracy in per cent on {num_images} {first.split} images of {first.dataset} ({settings}), with "
        f"{levels.confidence:.0%} intervals over images.",
        f"Each row takes the best of {num_searched} models at that radius, {how}; no single model attains the whole "
        f"envelope. The best single one is {frame['single_model'][0]}.",
    ]
    if frame["n_limited"].any():
        sentences.append(f"{N_LIMITED} limited by the number of noise draws, not by the model.")
    if frame["printed"].notna().any():
        sentences.append("Paper: the envelope (and baseline) that Salman et al. 2019 print, on their 500 images.")
    if grid.is_imported:
        sentences.append("Radii are those of published logs, rounded to nearest in print.")
    return " ".join([partial_note(comparison), *sentences] if grid.num_missing else sentences)


def statistics_caption(comparison: Comparison, frame: pd.DataFrame, levels: Levels) -> str:
    """What the columns of the second table are."""
    error = 1 - levels.confidence
    return (
        "Votes allow: were every image at the upper end of what its votes leave open. All at once: "
        f"{levels.confidence:.0%} band for all {frame['num_models'][0]} models and all radii together (it fails with "
        f"probability {error:.2g}). High prob.: what is certified truly on these images, whatever certificates are "
        f"false, with probability {1 - levels.rho:g} for all models together. Avg. r: average radius of the model in "
        "the row, secondary. Abstains: how often that model makes no claim; not known (a dash) where sampling "
        "stopped early."
    )


def partial_note(comparison: Comparison) -> str:
    """The warning that goes with everything drawn from an incomplete grid."""
    grid = comparison.grid
    return f"PARTIAL: {grid.num_missing} of {grid.num_missing + len(grid.models)} models are missing."


def _cells(frame: pd.DataFrame, prefix: str) -> list[str]:
    return [
        f"{100 * value:.1f}{N_LIMITED if is_limited else ''} [{_down(lower):.1f}, {_up(upper):.1f}]"
        for value, is_limited, lower, upper in zip(
            *(frame[f"{prefix}{name}"] for name in ("accuracy", "n_limited", "lower", "upper")), strict=True
        )
    ]


def _printed_cells(frame: pd.DataFrame) -> list[str]:
    names = [name for name in ("printed", "baseline_printed") if name in frame]
    cells = zip(*(frame[name] for name in names), strict=True)
    return [" / ".join("-" if math.isnan(share) else f"{100 * share:.0f}" for share in row) for row in cells]


def _percent(share: float, form: str, *, up: bool = False) -> str:
    return "-" if math.isnan(share) else form.format(_up(share) if up else _down(share))


def _down(share: float) -> float:
    return math.floor(1000 * share + 1e-9) / 10


def _up(share: float) -> float:
    return math.ceil(1000 * share - 1e-9) / 10
