"""What a table or figure shows, declared: what is grouped by what. Drawn for any grid that holds such records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from analysis.selection import check_where
from jobs.errors import ConfigError
from jobs.imported import PREDICTIONS
from jobs.validation import STRICT, collect, unknown_choice

Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
EACH = "each"
"""In a condition of a table that is made once per value: that value."""

Conditions = dict[str, Any]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RowsDeclaration:
    """Some rows of a table.

    Attributes:
        label: Of the row, or of the rows' group.
        where: Conditions on models.
        not_in_logs: Conditions on models to leave out where the records are published logs.
    """

    label: str
    where: Conditions
    not_in_logs: list[Conditions] = Field(default_factory=list)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TableDeclaration:
    """One table, made once for every data set in the records.

    Attributes:
        name: Of its files.
        title: Above it.
        numbers: Data set to the paper's own number of the table.
        kind: envelope: one row per declaration, the best of its models at each radius. models: one row
            per model, the best at each radius in bold.
        radii: Data set to [first, last, step]; for others about ten even steps.
        rows: What is in it, from the top.
    """

    name: Name
    title: str
    numbers: dict[str, str] = Field(default_factory=dict)
    kind: Literal["envelope", "models"]
    radii: dict[str, Annotated[list[float], Field(min_length=3, max_length=3)]] = Field(default_factory=dict)
    rows: Annotated[list[RowsDeclaration], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CurveDeclaration:
    """One curve of a figure, or one per value of a parameter.

    Attributes:
        kind: certified: the envelope of the models. empirical: accuracy under attack, by its radius.
        label: In the legend; may hold parameters in braces, {sigma_train:.2f}.
        where: Conditions on models, or on predictions.
        by: Draw one curve per value of this column; None for one of all.
        dashed: Dashed curves follow the colours of the solid ones by position.
        not_in_logs: As for rows.
    """

    kind: Literal["certified", "empirical"]
    label: str
    where: Conditions
    by: str | None = None
    dashed: bool = False
    not_in_logs: list[Conditions] = Field(default_factory=list)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FigureDeclaration:
    """One figure, drawn once for every data set in the records.

    Attributes:
        name: Of its files.
        title: In the index; a figure for a paper has its caption there, not in the picture.
        numbers: Data set to the paper's own number of the figure.
        max_radius: Data set to the right end of the axis; others end where the curves do.
        needs: Draw it only if curves of this kind are among the records.
        curves: What is in it.
    """

    name: Name
    title: str
    numbers: dict[str, str] = Field(default_factory=dict)
    max_radius: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    needs: Literal["certified", "empirical"] = "certified"
    curves: Annotated[list[CurveDeclaration], Field(min_length=1)]


def parse_declarations(
    tables: Sequence[Mapping[str, Any]], figures: Sequence[Mapping[str, Any]]
) -> tuple[list[TableDeclaration], list[FigureDeclaration]]:
    """Declarations as dataclasses.

    Raises:
        ConfigError: With all problems of all of them.
    """
    problems: list[str] = []
    made_tables = [
        _table(problems, single, f"tables[{number}]")
        for number, entry in enumerate(tables)
        for single in _singles(entry)
    ]
    made_figures = [_figure(problems, entry, f"figures[{number}]") for number, entry in enumerate(figures)]
    names = [made.name for made in [*made_tables, *made_figures] if made is not None]
    problems += [
        f"{name}: two tables or figures of this name" for name in sorted({n for n in names if names.count(n) > 1})
    ]
    if problems:
        raise ConfigError(problems)
    return [made for made in made_tables if made], [made for made in made_figures if made]


def _singles(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A table for each value of ``each``, the value in its name, title and conditions."""
    plain = dict(entry)
    values = plain.pop(EACH, None)
    if values is None:
        return [plain]
    return [
        {
            **plain,
            "name": str(plain.get("name")).replace("{each}", str(value)),
            "title": str(plain.get("title")).replace("{each}", str(value)),
            "rows": [_with_value(row, value) for row in plain.get("rows", [])],
        }
        for value in values
    ]


def _with_value(row: Mapping[str, Any], value: Any) -> dict[str, Any]:
    where = {name: value if wanted == EACH else wanted for name, wanted in row.get("where", {}).items()}
    return {**row, "where": where}


def _table(problems: list[str], entry: Mapping[str, Any], where: str) -> TableDeclaration | None:
    rows = [
        collect(problems, RowsDeclaration, row, where=f"{where}.rows[{number}]")
        for number, row in enumerate(entry.get("rows", []))
    ]
    for row in rows:
        if row is not None:
            _check_models(problems, [row.where, *row.not_in_logs], where)
    return collect(problems, TableDeclaration, {**entry, "rows": [row for row in rows if row]}, where=where)


def _figure(problems: list[str], entry: Mapping[str, Any], where: str) -> FigureDeclaration | None:
    curves = [
        collect(problems, CurveDeclaration, curve, where=f"{where}.curves[{number}]")
        for number, curve in enumerate(entry.get("curves", []))
    ]
    for curve in curves:
        if curve is not None and curve.kind == "certified":
            _check_models(problems, [curve.where, *curve.not_in_logs, {curve.by: None} if curve.by else {}], where)
        elif curve is not None:
            columns = [*curve.where, *([curve.by] if curve.by else [])]
            known = PREDICTIONS.schema.names
            problems += [f"{where}: {unknown_choice('column', name, known)}" for name in columns if name not in known]
    return collect(problems, FigureDeclaration, {**entry, "curves": [curve for curve in curves if curve]}, where=where)


def _check_models(problems: list[str], conditions: Sequence[Conditions], where: str) -> None:
    for condition in conditions:
        try:
            check_where(condition, where)
        except ConfigError as error:
            problems += error.problems
