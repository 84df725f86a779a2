"""Tables of certified accuracy compared with the paper's, as CSV, Markdown and LaTeX."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

from analysis.printed import PrintedRow
from analysis.statistics import Frame, csv_text, rows_of
from jobs.atomic import write_text
from jobs.wording import counted
from smoothing.radius import format_radius

NOT_RECORDED = "-"
"""In a cell that the paper prints and the records do not contain."""

_IN_CSV = [
    *("group", "row", "radius", "accuracy", "num_certified", "num_images"),
    *("is_lower_bound", "model", "paper", "differs"),
]


@dataclass(frozen=True, kw_only=True, eq=False)
class PaperTable:
    """A filled table."""

    name: str  # name of its files
    title: str  # title, with the number of the paper's table if there is one
    radii: tuple[float, ...]  # radii of the columns
    cells: Frame  # one row per cell, from the top left, in the columns of ``table_row`` and is_best
    notes: tuple[str, ...]  # notes below the table

    @property
    def remark(self) -> str:
        """How it compares with the paper's, if the paper prints any of its numbers."""
        num_compared = int(self.cells["is_compared"].sum())
        compared = counted(num_compared, "cell")
        return f": {self.cells['differs'].sum()} of {compared} differ from the paper" if num_compared else ""

    def write(self, folder: Path) -> None:
        """Write it as CSV, Markdown and LaTeX."""
        csv = csv_text({name: self.cells[name] for name in _IN_CSV})
        for suffix, text in {"csv": csv, "md": table_markdown(self), "tex": table_latex(self)}.items():
            write_text(folder / f"{self.name}.{suffix}", text)


def table_row(
    group: str,
    label: str,
    radii: Sequence[float],
    *,
    decimals: int,
    printed: PrintedRow | None,
    counts: npt.ArrayLike = math.nan,
    num_images: int = 0,
    models: Sequence[str] | str = "",
    is_exact: npt.ArrayLike = True,
    is_on_all: bool = False,
) -> Frame:
    """The cells of one row, for R radii.

    Args:
        group, label: Its first two columns.
        decimals: Decimals that the paper prints of a share; 0: it prints percent.
        printed: The paper's row; None if it prints none.
        counts: Images certified, of several seeds their mean, shape (R,); nan if there are no records.
        num_images: All images, N; 0 if there are no records.
        models: Labels of the certified models that attain the numbers.
        is_exact: Whether a number is more than a lower bound, as between the radii that sampling stopped for.
        is_on_all: Whether it is on all images, so that its numbers may be the best of their columns.
    """
    paper = np.array([printed.percent_at(radius) / 100 if printed else math.nan for radius in radii])
    num_certified, is_bound = np.broadcast_to(counts, paper.size), ~np.broadcast_to(is_exact, paper.size)
    accuracy = num_certified / num_images if num_images else np.full(paper.size, math.nan)
    text = [_text(share, decimals, lower) for share, lower in zip(accuracy, is_bound, strict=True)]
    shown = ["" if math.isnan(share) else _text(share, decimals, False) for share in paper]
    is_compared = ~np.isnan(paper) & ~np.isnan(accuracy) & ~is_bound
    cells = {
        "group": group,
        "row": label,
        "radius": radii,
        "num_certified": num_certified,
        "model": models,
        "num_images": num_images,
        "is_lower_bound": is_bound,
        "accuracy": accuracy,
        "paper": paper,
        "text": text,
        "printed": shown,
        "is_compared": is_compared,
        "differs": is_compared & (np.array(text) != np.array(shown)),
        "is_on_all": is_on_all,
    }
    return {name: np.broadcast_to(np.asarray(values), paper.size) for name, values in cells.items()}


def with_best(rows: Sequence[Frame]) -> Frame:
    """All cells with is_best: the largest number of each column, and all equal ones, among the rows on all images."""
    cells = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    counts_RC = np.where(cells["is_on_all"], np.nan_to_num(cells["num_certified"]), 0).reshape(len(rows), -1)
    return {**cells, "is_best": ((counts_RC > 0) & (counts_RC == counts_RC.max(axis=0))).ravel()}


def table_markdown(table: PaperTable) -> str:
    """Markdown: the best in bold; a number that differs from the paper's is followed by it."""
    headers = ["", "l2 radius", *map(format_radius, table.radii)]
    text = tabulate(_rows(table, "**{}**", "{} (paper {})"), headers, tablefmt="pipe", disable_numparse=True)
    return "\n\n".join([f"## {table.title}", text, *_notes(table)]) + "\n"


def table_latex(table: PaperTable) -> str:
    """LaTeX with booktabs rules."""
    rows = [["", r"$\ell_2$ radius", *map(format_radius, table.radii)]]
    for group, label, *cells in _rows(table, r"\textbf{{{}}}", r"{} ($\neq$ {})"):
        rows.append([group, label.replace("sigma", r"$\sigma$").replace("epsilon", r"$\varepsilon$"), *cells])
    head, *body = [" & ".join(row) + r" \\" for row in rows]
    notes = [f"% {note}" for note in (table.title, *_notes(table))]
    begin = rf"\begin{{tabular}}{{ll{'r' * len(table.radii)}}}"
    return "\n".join([*notes, begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _text(share: float, decimals: int, is_bound: bool) -> str:
    """A share in the paper's form: 74 for envelopes, 0.74 for single models."""
    if math.isnan(share):
        return NOT_RECORDED
    value = 100 * share if decimals == 0 else share
    if is_bound:  # rounded to where it still is a bound
        return f">={math.floor(value * 10**decimals + 1e-9) / 10**decimals:.{decimals}f}"
    return f"{value:.{decimals}f}"


def _rows(table: PaperTable, bold: str, different: str) -> list[list[str]]:
    rows: list[list[str]] = []
    for number, cell in enumerate(rows_of(table.cells)):
        if number % len(table.radii) == 0:
            rows.append([cell["group"], cell["row"]])
        is_unmatched = cell["differs"] or (cell["text"] == NOT_RECORDED and cell["printed"])
        shown = bold.format(cell["text"]) if cell["is_best"] else cell["text"]
        rows[-1].append(different.format(shown, cell["printed"]) if is_unmatched else shown)
    return rows


def _notes(table: PaperTable) -> list[str]:
    has_bounds = table.cells["is_lower_bound"].any()
    return [
        *([f"{table.remark.removeprefix(': ')}."] if table.remark else []),
        *([">= marks a lower bound: sampling stopped early, for other radii."] if has_bounds else []),
        *table.notes,
    ]
