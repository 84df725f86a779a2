"""Declared tables, filled from records."""

from collections.abc import Sequence

from analysis.candidates import are_exact, candidates_of, exact_step, largest_of
from analysis.compare import even_radii, round_radii
from analysis.models import CertifiedModel
from analysis.paper.declarations import RowsDeclaration, TableDeclaration
from analysis.paper.records import PaperRecords, whole_models
from analysis.paper.tables import NOT_RECORDED, PaperTable, table_row, with_best
from analysis.printed import printed_envelope, printed_model, printed_models
from analysis.selection import Parameters, matches
from analysis.statistics import Frame
from jobs.specs.keys import decimal
from jobs.wording import counted


def fill_table(declaration: TableDeclaration, dataset: str, records: PaperRecords) -> PaperTable | None:
    """A declared table for one dataset; None if fewer than two of its groups (or its only one) have records."""
    groups = [records.models_of(dataset, rows.where, rows.not_in_logs) for rows in declaration.rows]
    if sum(bool(models) for models in groups) < min(2, len(groups)):
        return None
    radii = _radii(declaration, dataset, groups)
    notes: list[str] = []
    rows: list[Frame] = []
    for declared, models in zip(declaration.rows, groups, strict=True):
        if models and declaration.kind == "envelope":
            rows.append(_envelope_row(declared, dataset, models, radii, notes))
        elif models:
            rows += _model_rows(declared, dataset, models, radii, notes)
    return PaperTable(
        name=declaration.name_for(dataset),
        title=declaration.title_for(dataset),
        radii=tuple(radii),
        cells=with_best(rows),
        notes=tuple(dict.fromkeys(notes)),
    )


def _radii(declaration: TableDeclaration, dataset: str, groups: Sequence[Sequence[CertifiedModel]]) -> list[float]:
    if dataset in declaration.radii:
        first, last, by = declaration.radii[dataset]
        return even_radii(last, by, first=first)
    every = [model for models in groups for model in models]
    step = exact_step(model.parameters for model in every)
    return round_radii(max((largest_of(model.curve.radii) for model in every), default=0.0), step)


def _envelope_row(
    declared: RowsDeclaration, dataset: str, models: Sequence[CertifiedModel], radii: Sequence[float], notes: list[str]
) -> Frame:
    whole = whole_models(models)
    candidates = candidates_of(whole, declared.label)
    searched = counted(len(candidates.by_label), "certified model")
    notes.append(f"{declared.label}: the best of {searched} at each radius, selected on these same images.")
    if len(whole) < len(models):
        others = counted(len(models) - len(whole), "model certified", "models certified")
        notes.append(f"{declared.label}: without {others} on other images.")
    winners = [candidates.winner_at(radius) for radius in radii]
    return table_row(
        "",
        declared.label,
        radii,
        decimals=0,
        printed=printed_envelope(dataset, str(declared.where.get("method"))),
        counts=(candidates.accuracy_at(radii) * candidates.num_images).round(9),
        num_images=candidates.num_images,
        models=["" if winner is None else winner.name for winner in winners],
        is_exact=are_exact(radii, candidates.exact_step),
    )


def _model_rows(
    declared: RowsDeclaration, dataset: str, models: Sequence[CertifiedModel], radii: Sequence[float], notes: list[str]
) -> list[Frame]:
    """A row for each model, and for those that the paper prints, even as nan, and the records do not contain."""
    usual, rows = len(whole_models(models)[0].indices), []
    for model in models:
        label, num_images = _row_label(model.parameters), len(model.indices)
        if num_images < usual:
            label += f" ({counted(num_images, 'image')})"
            notes.append("Rows with fewer images show what their logs contain; bold does not consider them.")
        row = table_row(
            declared.label,
            label,
            radii,
            decimals=2,
            printed=printed_model(model.parameters),
            counts=model.curve.num_certified(radii),
            num_images=num_images,
            models=model.label,
            is_exact=are_exact(radii, exact_step([model.parameters])),
            is_on_all=num_images == usual,
        )
        rows.append(row)
    there = {_row_label(model.parameters) for model in models}
    for known, printed in printed_models().items():
        if known.dataset == dataset and _row_label(known) not in there and matches(known, declared.where):
            notes.append(f"{NOT_RECORDED}: no records, or an empty log (which the authors' own script prints as nan).")
            rows.append(table_row(declared.label, _row_label(known), radii, decimals=2, printed=printed))
    return rows


def _row_label(known: Parameters) -> str:
    label = "sigma = unknown" if known.sigma_train is None else f"sigma = {decimal(known.sigma_train)}"
    return label if not known.epsilon else f"{label}, epsilon = {known.epsilon:.2f}"
