"""Declarations of tables and figures: which models are in them, and how they are grouped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from analysis.compare import even_radii
from analysis.paper.predictions import LARGEST, SCHEMA
from analysis.selection import check_where
from jobs.errors import ConfigError
from jobs.validation import STRICT, collect, unknown_choice

Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
EACH = "each"
"""In a condition of a table that is made once per value: stands for that value."""

Conditions = dict[str, Any]


def _first_last_step(radii: list[float]) -> list[float]:
    first, last, step = radii
    if not (0 <= first <= last and step > 0):
        raise ValueError(f"write [first, last, step] with 0 <= first <= last and step > 0, got {radii}")
    even_radii(last, step, first=first)  # raises an error if there are too many
    return radii


Radii = Annotated[list[float], Field(min_length=3, max_length=3), AfterValidator(_first_last_step)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RowsDeclaration:
    """Some rows of a table.

    Attributes:
        label: Label of the row, or of the group of rows.
        where: Conditions on models.
        not_in_logs: Conditions on models to leave out if the records are published logs.
    """

    label: str
    where: Conditions
    not_in_logs: list[Conditions] = Field(default_factory=list)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TableDeclaration:
    """One table, made once for every dataset in the records.

    Attributes:
        name: Name of its files.
        title: Title above it.
        numbers: Dataset to the number of the paper's table.
        kind: envelope: one row per declaration, the best of its models at each radius. models: one row
            per model, the best at each radius in bold.
        radii: Dataset to [first, last, step]; about ten even steps for other datasets.
        rows: Its rows, from the top.
    """

    name: Name
    title: str
    numbers: dict[str, str] = Field(default_factory=dict)
    kind: Literal["envelope", "models"]
    radii: dict[str, Radii] = Field(default_factory=dict)
    rows: Annotated[list[RowsDeclaration], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CurveDeclaration:
    """One curve of a figure, or one per value of a parameter.

    Attributes:
        kind: certified: the envelope of the models. empirical: accuracy under attack over the attack's
            radius; the best of several models at each radius.
        label: Label in the legend; may contain parameters in braces, {sigma_train:.2f}.
        where: Conditions on models, or on the columns of ``predictions.SCHEMA``.
        in_logs: If the records are published logs, conditions that replace those of the same name.
        by: Draw one curve per value of this column; None: one curve of all.
        dashed: Dashed curves take the colours of the solid ones in order.
        not_in_logs: As for rows.
        single: Draw the one model with the largest mean accuracy instead of the envelope.
    """

    kind: Literal["certified", "empirical"]
    label: str
    where: Conditions
    by: str | None = None
    dashed: bool = False
    in_logs: Conditions = Field(default_factory=dict)
    not_in_logs: list[Conditions] = Field(default_factory=list)
    single: bool = False

    def conditions(self, *, are_logs: bool) -> Conditions:
        """The conditions that models or predictions must match to be in the curve."""
        return {**self.where, **self.in_logs} if are_logs else self.where


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FigureDeclaration:
    """One figure, drawn once for every dataset in the records.

    Attributes:
        name: Name of its files.
        title: Title in the index; the picture has none, as a paper puts it into the caption.
        numbers: Dataset to the number of the paper's figure.
        max_radius: Dataset to the right end of the axis; for other datasets it ends where the curves end.
        needs: Draw the figure only if the records contain curves of this kind.
        any_of: Draw it only if one of the curves with these labels has records; empty: whichever has.
        curves: Its curves.
    """

    name: Name
    title: str
    numbers: dict[str, str] = Field(default_factory=dict)
    max_radius: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    needs: Literal["certified", "empirical"] = "certified"
    any_of: list[str] = Field(default_factory=list)
    curves: Annotated[list[CurveDeclaration], Field(min_length=1)]


def parse_declarations(
    tables: Sequence[Mapping[str, Any]], figures: Sequence[Mapping[str, Any]]
) -> tuple[list[TableDeclaration], list[FigureDeclaration]]:
    """Validate declarations.

    Raises:
        ConfigError: With the problems of all declarations.
    """
    problems: list[str] = []
    made_tables = [
        _table(problems, single, f"tables[{number}]")
        for number, entry in enumerate(tables)
        for single in _singles(problems, entry, f"tables[{number}]")
    ]
    made_figures = [_figure(problems, entry, f"figures[{number}]") for number, entry in enumerate(figures)]
    names = [made.name for made in [*made_tables, *made_figures] if made is not None]
    problems += [
        f"{name}: two tables or figures have this name" for name in sorted({n for n in names if names.count(n) > 1})
    ]
    if problems:
        raise ConfigError(problems)
    return [made for made in made_tables if made], [made for made in made_figures if made]


def _singles(problems: list[str], entry: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """One table for each value of ``each``, with the value in its name, title and conditions."""
    plain = dict(entry)
    values = plain.pop(EACH, None)
    if values is None:
        return [plain]
    if not isinstance(values, list) or not values:
        problems.append(f"{where}.{EACH}: write a list of values, got {values!r}")
        return []
    rows = _mappings(problems, plain, "rows", where)
    if rows is None:
        return []
    return [
        {
            **plain,
            "name": str(plain.get("name")).replace("{each}", str(value)),
            "title": str(plain.get("title")).replace("{each}", str(value)),
            "rows": [_with_value(row, value) for row in rows],
        }
        for value in values
    ]


def _with_value(row: Mapping[str, Any], value: Any) -> dict[str, Any]:
    where = row.get("where")
    if not isinstance(where, Mapping):
        return dict(row)
    return {**row, "where": {name: value if wanted == EACH else wanted for name, wanted in where.items()}}


def _mappings(problems: list[str], entry: Mapping[str, Any], name: str, where: str) -> list[Mapping[str, Any]] | None:
    """The list of mappings under a name; None, and a problem, if it is something else."""
    values = entry.get(name, [])
    if isinstance(values, list) and all(isinstance(value, Mapping) for value in values):
        return values
    problems.append(f"{where}.{name}: write a list of mappings, got {values!r}")
    return None


def _table(problems: list[str], entry: Mapping[str, Any], where: str) -> TableDeclaration | None:
    listed = _mappings(problems, entry, "rows", where)
    if listed is None:
        return None
    rows = [
        collect(problems, RowsDeclaration, row, where=f"{where}.rows[{number}]") for number, row in enumerate(listed)
    ]
    for row in rows:
        if row is not None:
            _check_models(problems, [row.where, *row.not_in_logs], where)
    return collect(problems, TableDeclaration, {**entry, "rows": [row for row in rows if row]}, where=where)


def _figure(problems: list[str], entry: Mapping[str, Any], where: str) -> FigureDeclaration | None:
    listed = _mappings(problems, entry, "curves", where)
    if listed is None:
        return None
    curves = [
        collect(problems, CurveDeclaration, curve, where=f"{where}.curves[{number}]")
        for number, curve in enumerate(listed)
    ]
    for curve in curves:
        if curve is not None and curve.kind == "certified":
            by = {curve.by: None} if curve.by else {}
            _check_models(problems, [curve.where, curve.in_logs, *curve.not_in_logs, by], where)
        elif curve is not None:
            _check_columns(problems, curve, where)
    return collect(problems, FigureDeclaration, {**entry, "curves": [curve for curve in curves if curve]}, where=where)


def _check_columns(problems: list[str], curve: CurveDeclaration, where: str) -> None:
    for condition in (curve.where, curve.in_logs, {curve.by: None} if curve.by else {}):
        for name, wanted in condition.items():
            if name not in SCHEMA.names:
                problems.append(f"{where}: {unknown_choice('column', name, SCHEMA.names)}")
            elif wanted == LARGEST and pa.types.is_string(SCHEMA.field(name).type):
                problems.append(f"{where}: {name} is not a number, so {LARGEST} does not apply; give a value")


def _check_models(problems: list[str], conditions: Sequence[Conditions], where: str) -> None:
    for condition in conditions:
        try:
            check_where(condition, where)
        except ConfigError as error:
            problems += error.problems
