"""Declared figures, drawn from records."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.candidates import Candidates, candidates_of, largest_of
from analysis.compare import Curve, envelope_curve, round_radii
from analysis.models import CertifiedModel
from analysis.paper.declarations import CurveDeclaration, FigureDeclaration
from analysis.paper.records import CLASSIFIER, PaperRecords, select_rows, whole_models
from analysis.selection import as_printed
from analysis.statistics import best_single, csv_text
from jobs.atomic import write_text
from jobs.errors import RecordError
from jobs.wording import counted

if TYPE_CHECKING:
    import pandas as pd  # slow to import


@dataclass(frozen=True, kw_only=True, eq=False)
class PaperFigure:
    """A figure, ready to be drawn."""

    name: str  # name of its files
    title: str  # title, with the number of the paper's figure if there is one
    curves: tuple[Curve, ...]  # at least one
    max_radius: float | None  # right end of the axis; None: where the curves end
    absent: tuple[str, ...]  # labels of declared curves that the records do not contain

    @property
    def remark(self) -> str:
        """How much of it was drawn."""
        absent = f"; no records for {', '.join(self.absent)}" if self.absent else ""
        return f": {counted(len(self.curves), 'curve')}{absent}"

    def write(self, folder: Path) -> None:
        """Write it as figures, and as CSV with a row per point. Certified curves step down just above a point."""
        from analysis.figures import curves_figure, write_figure  # matplotlib is slow to import

        write_figure(curves_figure(self.curves, max_radius=self.max_radius), folder, self.name)
        points = {
            "curve": np.concatenate([np.full(len(curve.radii), curve.label, dtype=object) for curve in self.curves]),
            "radius": np.concatenate([curve.radii for curve in self.curves]),
            "accuracy": np.concatenate([curve.accuracies for curve in self.curves]),
        }
        write_text(folder / f"{self.name}.csv", csv_text(points))


def trace_figure(declaration: FigureDeclaration, dataset: str, records: PaperRecords) -> PaperFigure | None:
    """The curves of a declared figure for one dataset; None if the records lack what it needs, or all but one curve.

    Raises RecordError if several attacks match one point of an empirical curve.
    """
    curves: list[Curve] = []
    absent, found = [], []
    colors_taken = {False: 0, True: 0}
    for declared in declaration.curves:
        trace = _certified if declared.kind == "certified" else _empirical
        # Dashed curves start again with the first colour: a pair to compare has one colour.
        traced = trace(declared, dataset, records, colors_taken[declared.dashed])
        curves += traced
        colors_taken[declared.dashed] += max(1, len(traced))
        if traced:
            found.append(declared.kind)
        else:
            absent.append(declared.label)
    if declaration.needs not in found or len(found) < min(2, len(declaration.curves)):
        return None  # a figure that compares several curves needs two of them
    if declaration.any_of and not set(declaration.any_of) - set(absent):
        return None  # what the figure is about is not in the records
    return PaperFigure(
        name=declaration.name_for(dataset),
        title=declaration.title_for(dataset),
        curves=tuple(curves),
        max_radius=declaration.max_radius.get(dataset),
        absent=tuple(absent),
    )


def _certified(declared: CurveDeclaration, dataset: str, records: PaperRecords, first_color: int) -> list[Curve]:
    where = declared.conditions(are_logs=records.are_logs)
    groups: dict[Any, list[CertifiedModel]] = {}
    for model in whole_models(records.models_of(dataset, where, declared.not_in_logs)):
        key = declared.by and as_printed(declared.by, getattr(model.parameters, declared.by))
        groups.setdefault(key, []).append(model)
    return [
        envelope_curve(
            _single(group) if declared.single else candidates_of(group, declared.label),
            label=_label(declared, asdict(group[0].parameters)),
            color_nr=first_color + number,
            dashed=declared.dashed,
        )
        for number, (_, group) in enumerate(sorted(groups.items(), key=lambda item: (item[0] is None, item[0])))
    ]


def _single(models: Sequence[CertifiedModel]) -> Candidates:
    """The one candidate with the largest mean accuracy, all its seeds included."""
    candidates = candidates_of(models, "all")
    reach = max(largest_of(curve.radii) for curve in candidates.curves.values())
    best = best_single(candidates, round_radii(reach, candidates.exact_step))
    return candidates_of(best.replicates, best.name)


def _empirical(declared: CurveDeclaration, dataset: str, records: PaperRecords, first_color: int) -> list[Curve]:
    rows = select_rows(records.predictions, {"dataset": dataset, **declared.conditions(are_logs=records.are_logs)})
    if rows.empty:
        return []
    groups = [rows] if declared.by is None else [group for _, group in rows.groupby(declared.by, observed=True)]
    return [_attacked(declared, group, first_color + number) for number, group in enumerate(groups)]


def _attacked(declared: CurveDeclaration, rows: "pd.DataFrame", color_nr: int) -> Curve:
    attacks = rows.groupby(["attack_epsilon", *CLASSIFIER], sort=True, observed=True, dropna=False)
    per_image = attacks["index"].agg(["count", "nunique"])
    if (per_image["count"] != per_image["nunique"]).any():
        raise RecordError(
            f"curve {declared.label!r}: several predictions of one model for the same image and radius match "
            f"{declared.where}; add conditions that leave one attack, or split the curve with by"
        )
    accuracies = attacks["correct"].mean().groupby(level="attack_epsilon").max()
    return Curve(
        label=_label(declared, rows.iloc[0].to_dict()),
        radii=np.asarray(accuracies.index, dtype=np.float64),
        accuracies=accuracies.to_numpy(dtype=np.float64),
        is_step=False,
        is_certified=False,
        color_nr=color_nr,
        dashed=declared.dashed,
    )


def _label(declared: CurveDeclaration, values: Mapping[Any, Any]) -> str:
    whole = {
        str(name): int(value) if isinstance(value, float) and name in ("m_test", "n") and value == value else value
        for name, value in values.items()
    }
    return declared.label.format(**whole)
