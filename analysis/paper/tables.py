"""Tables of certified accuracy set beside what the paper prints, as CSV, Markdown and LaTeX."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd
from tabulate import tabulate

from smoothing.radius import format_radius

NOT_RECORDED = "-"
"""In a cell that the paper prints and the records do not hold."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number.

    Attributes:
        num_certified: Images; None where there are no records.
        num_images: Of all N; 0 where there are no records.
        model: The one that attains it.
        printed: The paper's number in per cent; None where it prints none.
        is_best: Whether it is the best of its column.
        decimals: Digits that the paper prints of a share.
    """

    num_certified: int | None
    num_images: int
    model: str
    printed: float | None
    is_best: bool
    decimals: int

    @property
    def text(self) -> str:
        """As the paper prints it: 74 for envelopes, 0.74 for single models."""
        if self.num_certified is None:
            return NOT_RECORDED
        share = self.num_certified / self.num_images
        return f"{100 * share:.0f}" if self.decimals == 0 else f"{share:.{self.decimals}f}"

    @property
    def printed_text(self) -> str | None:
        """The paper's number in the same form; None where it prints none, or nan for an empty log."""
        if self.printed is None or math.isnan(self.printed):
            return None
        return f"{self.printed:.0f}" if self.decimals == 0 else f"{self.printed / 100:.{self.decimals}f}"

    @property
    def differs(self) -> bool:
        """Whether both are there and not the same."""
        both = self.printed_text is not None and self.num_certified is not None
        return both and self.text != self.printed_text


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A filled table.

    Attributes:
        name: Of its files.
        title: With the paper's own number, if it has one.
        radii: Of the columns.
        rows: (group, label, cells) from the top.
        notes: Under it.
    """

    name: str
    title: str
    radii: tuple[float, ...]
    rows: tuple[tuple[str, str, tuple[Cell, ...]], ...]
    notes: tuple[str, ...]

    @property
    def num_compared(self) -> int:
        """Cells that have a number in print."""
        return sum(cell.printed_text is not None and cell.num_certified is not None for cell in self._cells())

    @property
    def num_different(self) -> int:
        """Those that differ from it."""
        return sum(cell.differs for cell in self._cells())

    def _cells(self) -> list[Cell]:
        return [cell for _, _, cells in self.rows for cell in cells]


def table_frame(table: PaperTable) -> pd.DataFrame:
    """One row per cell, for CSV."""
    return pd.DataFrame(
        [
            {
                "group": group,
                "row": label,
                "radius": radius,
                "accuracy": None if cell.num_certified is None else cell.num_certified / cell.num_images,
                "num_certified": cell.num_certified,
                "num_images": cell.num_images,
                "model": cell.model,
                "paper": None if cell.printed is None else cell.printed / 100,
                "differs": cell.differs,
            }
            for group, label, cells in table.rows
            for radius, cell in zip(table.radii, cells, strict=True)
        ]
    )


def table_markdown(table: PaperTable) -> str:
    """Markdown: the best in bold, a number that differs from print followed by the printed one."""
    rows = [
        [group, label, *(_marked(cell, "**{}**", "{} (paper {})") for cell in cells)]
        for group, label, cells in table.rows
    ]
    text = tabulate(rows, headers=_headers(table), tablefmt="pipe", disable_numparse=True)
    return "\n\n".join([f"## {table.title}", text, *_notes(table)]) + "\n"


def table_latex(table: PaperTable) -> str:
    """LaTeX with booktabs rules."""
    lines = [
        f"% {table.title}",
        *(f"% {note}" for note in _notes(table)),
        rf"\begin{{tabular}}{{ll{'r' * len(table.radii)}}}",
        r"\toprule",
        " & ".join(["", r"$\ell_2$ radius", *(format_radius(radius) for radius in table.radii)]) + r" \\",
        r"\midrule",
    ]
    for group, label, cells in table.rows:
        marked = [_marked(cell, r"\textbf{{{}}}", r"{} ($\neq$ {})") for cell in cells]
        lines.append(" & ".join([group, _latex(label), *marked]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex(label: str) -> str:
    return label.replace("sigma", r"$\sigma$").replace("epsilon", r"$\varepsilon$")


def _headers(table: PaperTable) -> list[str]:
    return ["", "l2 radius", *(format_radius(radius) for radius in table.radii)]


def _notes(table: PaperTable) -> list[str]:
    compared = []
    if table.num_compared:
        compared = [f"{table.num_compared} cells are printed in the paper; {table.num_different} differ from it."]
    return [*compared, *table.notes]


def _marked(cell: Cell, bold: str, different: str) -> str:
    text = bold.format(cell.text) if cell.is_best else cell.text
    is_unmatched = cell.differs or (cell.num_certified is None and cell.printed_text is not None)
    return different.format(text, cell.printed_text) if is_unmatched else text
