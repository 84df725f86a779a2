"""Tables of certified accuracy compared with the paper's, as CSV, Markdown and LaTeX."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd
from tabulate import tabulate

from jobs.wording import counted
from smoothing.radius import format_radius

NOT_RECORDED = "-"
"""In a cell that the paper prints and the records do not contain."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number.

    Attributes:
        num_certified: Images certified, of several seeds their mean; None if there are no records.
        num_images: All images, N; 0 if there are no records.
        model: Label of the certified model that attains the number.
        printed: The paper's number in percent; None if it prints none.
        is_best: Whether the number is the best of its column.
        decimals: Decimals that the paper prints of a share.
        is_exact: Whether it is more than a lower bound, as between the radii that sampling stopped for.
    """

    num_certified: float | None
    num_images: int
    model: str
    printed: float | None
    is_best: bool
    decimals: int
    is_exact: bool = True

    @property
    def text(self) -> str:
        """The number in the paper's form: 74 for envelopes, 0.74 for single models."""
        if self.num_certified is None:
            return NOT_RECORDED
        share = self.num_certified / self.num_images
        value, mark = 100 * share if self.decimals == 0 else share, ""
        if not self.is_exact:  # rounded to where it still is a bound
            value, mark = math.floor(value * 10**self.decimals + 1e-9) / 10**self.decimals, ">="
        return f"{mark}{value:.{self.decimals}f}"

    @property
    def printed_text(self) -> str | None:
        """The paper's number in the same form; None if it prints none, or nan for an empty log."""
        if self.printed is None or math.isnan(self.printed):
            return None
        return f"{self.printed:.0f}" if self.decimals == 0 else f"{self.printed / 100:.{self.decimals}f}"

    @property
    def differs(self) -> bool:
        """Whether both numbers exist and differ."""
        both = self.printed_text is not None and self.num_certified is not None and self.is_exact
        return both and self.text != self.printed_text


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A filled table.

    Attributes:
        name: Name of its files.
        title: Title, with the number of the paper's table if there is one.
        radii: Radii of the columns.
        rows: (group, label, cells) from the top.
        notes: Notes below the table.
    """

    name: str
    title: str
    radii: tuple[float, ...]
    rows: tuple[tuple[str, str, tuple[Cell, ...]], ...]
    notes: tuple[str, ...]

    @property
    def num_compared(self) -> int:
        """Number of cells that have records and a number in the paper."""
        return sum(
            cell.printed_text is not None and cell.num_certified is not None and cell.is_exact for cell in self._cells()
        )

    @property
    def num_different(self) -> int:
        """Number of those cells that differ from the paper."""
        return sum(cell.differs for cell in self._cells())

    @property
    def comparison(self) -> str:
        """How the table compares with the paper's, in words."""
        return f"{self.num_different} of {counted(self.num_compared, 'cell')} differ from the paper"

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
                "is_lower_bound": not cell.is_exact,
                "model": cell.model,
                "paper": None if cell.printed is None else cell.printed / 100,
                "differs": cell.differs,
            }
            for group, label, cells in table.rows
            for radius, cell in zip(table.radii, cells, strict=True)
        ]
    )


def table_markdown(table: PaperTable) -> str:
    """Markdown: the best in bold; a number that differs from the paper's is followed by it."""
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
    bounds = [">= is a lower bound only: sampling stopped for other radii."]
    has_bounds = any(not cell.is_exact for _, _, cells in table.rows for cell in cells)
    return [
        *([f"{table.comparison}."] if table.num_compared else []),
        *(bounds if has_bounds else []),
        *table.notes,
    ]


def _marked(cell: Cell, bold: str, different: str) -> str:
    text = bold.format(cell.text) if cell.is_best else cell.text
    is_unmatched = cell.differs or (cell.num_certified is None and cell.printed_text is not None)
    return different.format(text, cell.printed_text) if is_unmatched else text
