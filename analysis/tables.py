"""The envelope's tables for the screen, for Markdown and for LaTeX, and the notes that belong to them."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from tabulate import tabulate

from analysis.candidates import SELECTION_STEP
from analysis.compare import Comparison
from analysis.statistics import Frame, Levels, rows_of
from jobs.wording import counted, wrapped
from smoothing.radius import format_radius

TableFormat = Literal["simple", "pipe", "latex_booktabs"]

_LOWER_BOUND = ">="  # marks an accuracy that is only a lower bound, since sampling stopped for other radii
_N_LIMITED = "*"  # follows an accuracy that the number of draws limits, not the model


def all_tables(comparison: Comparison, frame: Frame, levels: Levels, table_format: TableFormat) -> str:
    """The envelope and its statistics, each with what the reader must know."""
    note, notes = caption(comparison, frame, levels), statistics_notes(comparison, levels)
    if table_format == "simple":
        note, notes = wrapped(note), [wrapped(line, indent="  ") for line in notes]
    else:
        notes = [f"- {line}" for line in notes]
    tables = [table(comparison, frame, table_format) for table in (envelope_table, statistics_table)]
    return "\n\n".join([tables[0], note, tables[1], "\n".join(notes)]) + "\n"


def envelope_table(comparison: Comparison, frame: Frame, table_format: TableFormat) -> str:
    """The envelope as text: accuracies in percent, intervals rounded outwards, and the paper's numbers if any."""
    return _tabulated(*envelope_cells(comparison, frame, is_stacked=table_format == "simple"), table_format)


def envelope_cells(
    comparison: Comparison, frame: Frame, *, is_stacked: bool = False
) -> tuple[list[str], list[tuple[str, ...]]]:
    """Headers and rows of the envelope's table; stacked, a model is below its accuracy, so that it fits 80 columns."""
    rows = rows_of(frame)
    columns = [("r", [format_radius(row["radius"]) for row in rows])]
    sides = [(comparison.candidates.name, "")]
    if comparison.baseline is not None:
        sides.append((comparison.baseline.name, "baseline_"))
    for name, prefix in sides:
        accuracies, labels = [_accuracy(row, prefix) for row in rows], [row[f"{prefix}model"] for row in rows]
        if is_stacked:
            cut = [textwrap.fill(label, 24) for label in labels]  # with two such columns it fits 80 columns
            columns.append((f"{name}\nmodel", ["\n".join(pair) for pair in zip(accuracies, cut, strict=True)]))
        else:
            columns += [(name, accuracies), ("model", labels)]
    if comparison.baseline is not None:
        columns.append(("gain", ["" if math.isnan(row["gain"]) else f"{100 * row['gain']:+.1f}" for row in rows]))
    if not np.isnan(frame["printed"]).all():
        names = [name for name in ("printed", "baseline_printed") if name in frame]
        columns.append(("paper", [" / ".join(_percent(row[name], ".0f") for name in names) for row in rows]))
    return [header for header, _ in columns], list(zip(*(cells for _, cells in columns), strict=True))


def statistics_table(comparison: Comparison, frame: Frame, table_format: TableFormat) -> str:
    """How reliable each cell of the envelope is, in percent; a dash if the records do not show it."""
    headers = ["r", comparison.candidates.name, "MC upper", "simultaneous", "high-prob. lower", "best single"]
    headers += ["avg. r", "abstains"]
    if table_format == "simple":  # headers of several lines: the table fits 80 columns
        headers = [textwrap.fill(header, 7, break_long_words=False, break_on_hyphens=False) for header in headers]
    rows = [
        [
            format_radius(row["radius"]),
            f"{_LOWER_BOUND if row['is_lower_bound'] else ''}{_percent(row['accuracy'])}",
            _up(row["monte_carlo_upper"]),
            "-" if row["is_lower_bound"] else f"[{_down(row['band_lower'])}, {_up(row['band_upper'])}]",
            _down(row["high_probability"]),
            _percent(row["single_accuracy"]),
            "-" if math.isnan(row["average_radius"]) else format_radius(row["average_radius"], 3),
            _percent(row["abstention_rate"]),
        ]
        for row in rows_of(frame)
    ]
    return _tabulated(headers, rows, table_format)


def caption(comparison: Comparison, frame: Frame, levels: Levels) -> str:
    """A few sentences that explain the table or the figure."""
    grid, first, candidates = comparison.grid, comparison.grid.models[0].parameters, comparison.candidates
    is_silent = first.n is None or first.alpha is None
    settings = "n and alpha are not recorded" if is_silent else f"n={first.n}, alpha={first.alpha}"
    sentences = [
        f"Certified accuracy in percent on {counted(candidates.num_images, f'{first.split} image')} of {first.dataset} "
        f"({settings}), with {levels.confidence:.0%} intervals over images.",
        f"All rows show the model {frame['single_model'][0]}, since there is no other to select."
        if len(candidates.by_label) == 1
        else f"Each row shows the best of {len(candidates.by_label):,} certified models at that radius, "
        f"{_selection(comparison)}. The envelope is not a single classifier; the best single model is "
        f"{frame['single_model'][0]}.",
    ]
    if frame["is_lower_bound"].any() or (comparison.baseline and frame["baseline_is_lower_bound"].any()):
        sentences.append(
            f"{_LOWER_BOUND} marks a lower bound: sampling stopped once the multiples of {comparison.exact_step:g} "
            "were settled; intervals and gains are computed only at these multiples."
        )
    if not np.isnan(frame["seed_sd"]).all():
        sentences.append("Models that differ only in their seed are one candidate, shown as mean ± SD over seeds.")
    elif comparison.seeds == "best" and len({one.recipe_label for one in grid.models}) < len(grid.models):
        sentences.append("Each row takes the best single seed (seeds=best): its accuracy rises with their number.")
    if frame["n_limited"].any():
        sentences.append(
            f"An asterisk ({_N_LIMITED}) marks accuracies limited by the number of noise draws, not by the model."
        )
    if not np.isnan(frame["printed"]).all():
        sentences.append(
            "Paper: the envelope (and the baseline) as printed by Salman et al. 2019, on their 500 images."
        )
    if grid.is_imported:
        sentences.append("Radii are from published logs, which round them to nearest.")
    return " ".join([partial_note(comparison), *sentences] if grid.missing else sentences)


def statistics_notes(comparison: Comparison, levels: Levels) -> list[str]:
    """What the columns of the second table are, one note per column."""
    return [
        "MC upper: the accuracy if every image were as robust as its votes allow.",
        f"Simultaneous: a {levels.confidence:.0%} band that holds for all radii and models at once "
        f"({counted(len(comparison.candidates.models), 'certified model')}).",
        "High-prob. lower: a lower bound on the share of these images that is truly certified, as some certificates "
        f"may be false; holds with probability {1 - levels.rho:g} for all these models at once.",
        "Best single: the accuracy of the best single model.",
        "Avg. r: the average certified radius of the model in the row.",
        "Abstains: how often that model abstains; a dash (-) if sampling stopped early.",
    ]


def partial_note(comparison: Comparison) -> str:
    """The warning in all output about an incomplete grid."""
    num_missing = len(comparison.grid.missing)
    total = counted(num_missing + len(comparison.grid.models), "certified model")
    return f"PARTIAL: missing {num_missing} of {total}."


def _selection(comparison: Comparison) -> str:
    if comparison.candidates.is_reported.all():
        return "selected on these same images, so its accuracy is optimistic"
    others = counted(int(comparison.candidates.is_for_selection.sum()), "other certified image")
    split = comparison.grid.models[0].parameters.split
    return f"selected on {others} (every {SELECTION_STEP}th of the {split} split)"


def _tabulated(headers: Sequence[str], rows: Sequence[Sequence[str]], table_format: TableFormat) -> str:
    if table_format != "simple":
        return tabulate(rows, headers=headers, tablefmt=table_format, disable_numparse=True)
    # Tabulate makes a column at least two wider than its header: here the header is a row like any other.
    widths = [
        max(len(line) for cell in column for line in cell.splitlines()) for column in zip(headers, *rows, strict=True)
    ]
    return tabulate([headers, ["-" * width for width in widths], *rows], tablefmt="plain", disable_numparse=True)


def _accuracy(row: Mapping[str, Any], prefix: str) -> str:
    names = ("accuracy", "lower", "upper", "seed_sd", "n_limited", "is_lower_bound")
    value, lower, upper, seed_sd, is_limited, is_bound = (row[f"{prefix}{name}"] for name in names)
    if is_bound:
        return f"{_LOWER_BOUND}{_down(value)}"
    spread = "" if math.isnan(seed_sd) else f" ± {_percent(seed_sd)}"
    return f"{_percent(value)}{spread}{_N_LIMITED if is_limited else ''} [{_down(lower)}, {_up(upper)}]"


def _percent(share: float, form: str = ".1f") -> str:
    """A share in percent, rounded to nearest; ``_down`` and ``_up`` round to one side. A dash if it is unknown."""
    return "-" if math.isnan(share) else f"{100 * share:{form}}"


def _down(share: float) -> str:
    return "-" if math.isnan(share) else f"{math.floor(1000 * share + 1e-9) / 10:.1f}"


def _up(share: float) -> str:
    return "-" if math.isnan(share) else f"{math.ceil(1000 * share - 1e-9) / 10:.1f}"
