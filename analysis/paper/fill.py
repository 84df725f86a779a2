"""Declared tables, filled from records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from analysis.candidates import candidates_of
from analysis.compare import even_radii, round_radii
from analysis.exact import are_exact, exact_step
from analysis.models import CertifiedModel
from analysis.paper.declarations import RowsDeclaration, TableDeclaration
from analysis.paper.records import PaperRecords, whole_models
from analysis.paper.tables import NOT_RECORDED, Cell, PaperTable
from analysis.printed import ModelKey, PrintedRow, printed_envelope, printed_model, printed_models
from analysis.selection import Parameters, matches
from jobs.specs.keys import decimal
from jobs.wording import counted

Row = tuple[str, str, list[Cell]]
"""Group, label and cells."""


def fill_table(declaration: TableDeclaration, dataset: str, records: PaperRecords) -> PaperTable | None:
    """A declared table for one dataset; None if fewer than two of its groups (or its only one) have records."""
    groups = [records.models_of(dataset, rows.where, rows.not_in_logs) for rows in declaration.rows]
    if sum(bool(models) for models in groups) < min(2, len(groups)):
        return None
    radii = _radii(declaration, dataset, groups)
    notes: list[str] = []
    rows: list[Row] = []
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


def _radii(declaration: TableDeclaration, dataset: str, groups: Sequence[Sequence[CertifiedModel]]) -> list[float]:
    if dataset in declaration.radii:
        first, last, by = declaration.radii[dataset]
        return even_radii(last, by, first=first)
    every = [model.curve.radii[-1] for models in groups for model in models if model.curve.radii.size]
    step = exact_step(model.parameters for models in groups for model in models)
    return round_radii(float(max(every, default=0.0)), step)


def _envelope_row(
    declared: RowsDeclaration, dataset: str, models: Sequence[CertifiedModel], radii: Sequence[float], notes: list[str]
) -> list[Row]:
    whole = whole_models(models)
    if not whole:
        return []
    candidates = candidates_of(whole, declared.label)
    printed = printed_envelope(dataset, str(declared.where.get("method")))
    searched = counted(len(candidates.by_label), "certified model")
    notes.append(f"{declared.label}: the best of {searched} at each radius, selected on these same images.")
    if len(whole) < len(models):
        others = counted(len(models) - len(whole), "model certified", "models certified")
        notes.append(f"{declared.label}: without {others} on other images.")
    cells = []
    is_exact = are_exact(radii, candidates.exact_step)
    for position, (radius, accuracy) in enumerate(zip(radii, candidates.accuracy_at(radii), strict=True)):
        winner = candidates.winner_at(radius)
        cells.append(
            Cell(
                num_certified=round(float(accuracy) * candidates.num_images, 9),
                num_images=candidates.num_images,
                model="" if winner is None else winner.name,
                printed=printed.percent_at(radius) if printed else None,
                is_best=False,
                decimals=0,
                is_exact=bool(is_exact[position]),
            )
        )
    return [("", declared.label, cells)]


def _model_rows(
    declared: RowsDeclaration, dataset: str, models: Sequence[CertifiedModel], radii: Sequence[float], notes: list[str]
) -> list[Row]:
    usual = len(whole_models(models)[0].indices) if models else 0
    rows = []
    for model in models:
        label, printed = _row_label(model.parameters), printed_model(model.parameters)
        if len(model.indices) < usual:
            label += f" ({counted(len(model.indices), 'image')})"
            notes.append("Rows with fewer images show what their logs contain; bold does not consider them.")
        counts = model.curve.num_certified(radii)
        cells = [
            Cell(
                num_certified=int(count),
                num_images=len(model.indices),
                model=model.label,
                printed=printed.percent_at(radius) if printed else None,
                is_best=len(model.indices) == usual,  # only a candidate until all rows are compared
                decimals=2,
                is_exact=bool(exact),
            )
            for radius, count, exact in zip(
                radii, counts, are_exact(radii, exact_step([model.parameters])), strict=True
            )
        ]
        rows.append((declared.label, label, cells))
    return rows + _rows_without_records(declared, dataset, models, radii, notes)


def _rows_without_records(
    declared: RowsDeclaration, dataset: str, models: Sequence[CertifiedModel], radii: Sequence[float], notes: list[str]
) -> list[Row]:
    """Rows that the paper prints, even as nan, and the records do not contain: no row is missing silently."""
    there = {_row_label(model.parameters) for model in models}
    rows = []
    for key, printed in printed_models().items():
        known = _parameters_of(key)
        label = _row_label(known)
        if not models or known.dataset != dataset or not matches(known, declared.where) or label in there:
            continue
        notes.append(f"{NOT_RECORDED}: no records, or an empty log (which the authors' own script prints as nan).")
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


def _marked_best(rows: list[Row]) -> list[Row]:
    """Marks the largest number of each column, and all equal ones, among the rows on all images."""
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
    label = "sigma = unknown" if known.sigma_train is None else f"sigma = {decimal(known.sigma_train)}"
    return label if not known.epsilon else f"{label}, epsilon = {known.epsilon:.2f}"
