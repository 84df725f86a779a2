"""Declared tables, filled from records and set beside what the paper prints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from tabulate import tabulate

from analysis.compare import contend, even_radii
from analysis.declarations import RowsDeclaration, TableDeclaration
from analysis.load import Model
from analysis.paper_numbers import ModelKey, PrintedRow, printed_envelope, printed_model, printed_models
from analysis.paper_records import PaperRecords, whole_models
from analysis.selection import Parameters, matches

_NOT_RECORDED = "-"


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
            return _NOT_RECORDED
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


def fill_table(declaration: TableDeclaration, dataset: str, records: PaperRecords) -> PaperTable | None:
    """A declared table for one data set; None where fewer than two of its groups (or its only one) have records."""
    groups = [records.models_of(dataset, rows.where, rows.not_in_logs) for rows in declaration.rows]
    if sum(bool(models) for models in groups) < min(2, len(groups)):
        return None
    radii = _radii(declaration, dataset, groups)
    notes: list[str] = []
    rows: list[tuple[str, str, list[Cell]]] = []
    for declared, models in zip(declaration.rows, groups, strict=True):
        if declaration.kind == "envelope":
            rows += _envelope_row(declared, dataset, models, radii, notes)
        else:
            rows += _model_rows(declared, dataset, models, radii, notes)
    if declaration.kind == "models":
        rows = _marked_best(rows)
    number = declaration.numbers.get(dataset)
    return PaperTable(
        name=f"{declaration.name}_{dataset}",
        title=f"{declaration.title} ({dataset}{f', {number}' if number else ''})",
        radii=tuple(radii),
        rows=tuple((group, label, tuple(cells)) for group, label, cells in rows),
        notes=tuple(dict.fromkeys(notes)),
    )


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
        " & ".join(["", r"$\ell_2$ radius", *(f"{radius:.4g}" for radius in table.radii)]) + r" \\",
        r"\midrule",
    ]
    for group, label, cells in table.rows:
        marked = [_marked(cell, r"\textbf{{{}}}", r"{} ($\neq$ {})") for cell in cells]
        lines.append(" & ".join([group, _latex(label), *marked]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _radii(declaration: TableDeclaration, dataset: str, groups: Sequence[Sequence[Model]]) -> list[float]:
    if dataset in declaration.radii:
        first, last, step = declaration.radii[dataset]
        return [first + radius for radius in even_radii(last - first, step)]
    every = [model.curve.radii[-1] for models in groups for model in models if model.curve.radii.size]
    largest = float(max(every, default=0.0))
    step = next(step for step in (0.0625, 0.125, 0.25, 0.5, 1.0, largest) if largest / step <= 12)
    return even_radii(largest, step)


def _envelope_row(
    declared: RowsDeclaration, dataset: str, models: Sequence[Model], radii: Sequence[float], notes: list[str]
) -> list[tuple[str, str, list[Cell]]]:
    whole = whole_models(models)
    if not whole:
        return []
    contenders = contend(whole, declared.label)
    printed = printed_envelope(dataset, str(declared.where.get("method")))
    notes.append(f"{declared.label}: the best of {len(whole)} models at each radius, on the images it is chosen on.")
    if len(whole) < len(models):
        notes.append(f"{declared.label}: {len(models) - len(whole)} models certified on other images are left out.")
    cells = []
    for radius, count in zip(radii, contenders.num_certified_at(radii), strict=True):
        winner = contenders.winner_at(radius)
        cells.append(
            Cell(
                num_certified=int(count),
                num_images=contenders.num_images,
                model="" if winner is None else winner.label,
                printed=printed.percent_at(radius) if printed else None,
                is_best=False,
                decimals=0,
            )
        )
    return [("", declared.label, cells)]


def _model_rows(
    declared: RowsDeclaration, dataset: str, models: Sequence[Model], radii: Sequence[float], notes: list[str]
) -> list[tuple[str, str, list[Cell]]]:
    usual = len(whole_models(models)[0].indices) if models else 0
    rows = []
    for model in models:
        label, printed = _row_label(model.parameters), printed_model(model.parameters)
        if len(model.indices) < usual:
            label += f" ({len(model.indices)} images)"
            notes.append("Rows with fewer images are as their logs are, and not compared with the others for bold.")
        counts = model.curve.num_certified(radii)
        cells = [
            Cell(
                num_certified=int(count),
                num_images=len(model.indices),
                model=model.label,
                printed=printed.percent_at(radius) if printed else None,
                is_best=len(model.indices) == usual,  # may be: settled over all rows
                decimals=2,
            )
            for radius, count in zip(radii, counts, strict=True)
        ]
        rows.append((declared.label, label, cells))
    return rows + _rows_without_records(declared, dataset, models, radii, notes)


def _rows_without_records(
    declared: RowsDeclaration, dataset: str, models: Sequence[Model], radii: Sequence[float], notes: list[str]
) -> list[tuple[str, str, list[Cell]]]:
    """Rows that the paper prints (be it as nan) and the records do not hold, so that no row is missing unseen."""
    there = {_row_label(model.parameters) for model in models}
    rows = []
    for key, printed in printed_models().items():
        known = _parameters_of(key)
        label = _row_label(known)
        if not models or known.dataset != dataset or not matches(known, declared.where) or label in there:
            continue
        notes.append(f"{_NOT_RECORDED}: no records (an empty log, which the paper's own script prints as nan).")
        rows.append((declared.label, label, [_empty_cell(printed, radius) for radius in radii]))
    return rows


def _parameters_of(key: ModelKey) -> Parameters:
    return Parameters(
        train_key="",
        certify_key="",
        dataset=key.dataset,
        split="test",
        sigma_cert=key.sigma,
        method=key.method,
        attack=key.attack,
        sigma_train=key.sigma,
        epsilon=key.epsilon,
        m_train=key.m_train,
        num_steps=key.num_steps,
    )


def _empty_cell(printed: PrintedRow, radius: float) -> Cell:
    return Cell(
        num_certified=None, num_images=0, model="", printed=printed.percent_at(radius), is_best=False, decimals=2
    )


def _marked_best(rows: list[tuple[str, str, list[Cell]]]) -> list[tuple[str, str, list[Cell]]]:
    """Bold for the most of each column among the rows on all images; all of them where several have it."""
    if not rows:
        return rows
    counts = np.array(
        [[cell.num_certified if cell.is_best and cell.num_certified else 0 for cell in cells] for _, _, cells in rows]
    )
    best = counts.max(axis=0)
    return [
        (
            group,
            label,
            [
                replace(cell, is_best=bool(count == most and most > 0))
                for cell, count, most in zip(cells, row_counts, best, strict=True)
            ],
        )
        for (group, label, cells), row_counts in zip(rows, counts, strict=True)
    ]


def _row_label(known: Parameters) -> str:
    label = f"sigma = {known.sigma_train:.2f}"
    return label if not known.epsilon else f"{label}, epsilon = {known.epsilon:.2f}"


def _latex(label: str) -> str:
    return label.replace("sigma", r"$\sigma$").replace("epsilon", r"$\varepsilon$")


def _headers(table: PaperTable) -> list[str]:
    return ["", "l2 radius", *(f"{radius:.4g}" for radius in table.radii)]


def _notes(table: PaperTable) -> list[str]:
    compared = []
    if table.num_compared:
        compared = [f"{table.num_compared} cells are printed in the paper; {table.num_different} differ from it."]
    return [*compared, *table.notes]


def _marked(cell: Cell, bold: str, different: str) -> str:
    text = bold.format(cell.text) if cell.is_best else cell.text
    return different.format(text, cell.printed_text) if cell.differs else text
