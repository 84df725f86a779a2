"""Declarations of tables and figures: which models are in them, and how they are grouped."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import pyarrow as pa
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from analysis.compare import even_radii
from analysis.paper.records import LARGEST, SCHEMA
from analysis.selection import PARAMETERS
from jobs.errors import refuse
from jobs.validation import STRICT, collect, unknown_choice

EACH = "each"
"""In a condition of a table that is made once per value: a placeholder for that value."""

Conditions = dict[str, Any]


def _first_last_step(radii: list[float]) -> list[float]:
    first, last, step = radii
    if not (0 <= first <= last and step > 0):
        raise ValueError(f"write [first, last, step] with 0 <= first <= last and step > 0, got {radii}")
    even_radii(last, step, first=first)  # raises an error if there are too many
    return radii


Radii = Annotated[list[float], Field(min_length=3, max_length=3), AfterValidator(_first_last_step)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Declaration:
    """What tables and figures have in common; each is made once for every dataset in the records."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]  # name of its files
    title: str  # title above a table, or in the index: a figure has none, as a paper puts it into the caption
    numbers: dict[str, str] = Field(default_factory=dict)  # dataset to the number of the paper's table or figure

    def name_for(self, dataset: str) -> str:
        """Name of its files about a dataset."""
        return f"{self.name}_{dataset}"

    def title_for(self, dataset: str) -> str:
        """Title for a dataset, with the number of the paper's if there is one."""
        return f"{self.title} ({', '.join([dataset, *filter(None, [self.numbers.get(dataset)])])})"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RowsDeclaration:
    """Some rows of a table."""

    label: str  # label of the row, or of the group of rows
    where: Conditions  # conditions on models
    not_in_logs: list[Conditions] = Field(default_factory=list)  # models to leave out of published logs

    def problems(self, where: str) -> list[str]:
        """What is wrong with the names of parameters."""
        return _unknown([self.where, *self.not_in_logs], "parameter", PARAMETERS, where)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TableDeclaration(Declaration):
    """One table."""

    # envelope: one row per declaration, the best of its models at each radius. models: one row per model.
    kind: Literal["envelope", "models"]
    radii: dict[str, Radii] = Field(default_factory=dict)  # of a dataset; about ten even steps for others
    rows: Annotated[list[RowsDeclaration], Field(min_length=1)]  # its rows, from the top


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CurveDeclaration:
    """One curve of a figure, or one per value of a parameter."""

    # certified: the envelope of the models. empirical: accuracy under attack, the best of the models at each radius.
    kind: Literal["certified", "empirical"]
    label: str  # label in the legend; may contain parameters in braces, {sigma_train:.2f}
    where: Conditions  # conditions on models, or on the columns of ``records.SCHEMA``
    by: str | None = None  # draw one curve per value of this column; None: one curve of all
    dashed: bool = False  # dashed curves take the colours of the solid ones in order
    in_logs: Conditions = Field(default_factory=dict)  # for published logs, replace those of the same name
    not_in_logs: list[Conditions] = Field(default_factory=list)  # as for rows
    single: bool = False  # draw the one model with the largest mean accuracy instead of the envelope

    def conditions(self, *, are_logs: bool) -> Conditions:
        """The conditions that models or predictions must match to be in the curve."""
        return {**self.where, **self.in_logs} if are_logs else self.where

    def problems(self, where: str) -> list[str]:
        """What is wrong with the names of parameters or columns."""
        conditions = [self.where, self.in_logs, {self.by: None} if self.by else {}]
        if self.kind == "certified":
            return _unknown([*conditions, *self.not_in_logs], "parameter", PARAMETERS, where)
        texts = [name for name in SCHEMA.names if pa.types.is_string(SCHEMA.field(name).type)]
        return _unknown(conditions, "column", SCHEMA.names, where) + [
            f"{where}: {name} is not a number, so {LARGEST} does not apply; give a value"
            for condition in conditions
            for name, wanted in condition.items()
            if wanted == LARGEST and name in texts
        ]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FigureDeclaration(Declaration):
    """One figure."""

    # By dataset, the right end of the axis; for others it is where the curves end
    max_radius: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    needs: Literal["certified", "empirical"] = "certified"  # drawn only if a curve of this kind has records
    any_of: list[str] = Field(default_factory=list)  # and if one of the curves with these labels has; empty: any
    curves: Annotated[list[CurveDeclaration], Field(min_length=1)]  # its curves


Declared = TypeVar("Declared", TableDeclaration, FigureDeclaration)


def parse_declarations(
    tables: Sequence[Mapping[str, Any]], figures: Sequence[Mapping[str, Any]]
) -> tuple[list[TableDeclaration], list[FigureDeclaration]]:
    """Validated declarations. Raises ConfigError with the problems of all of them."""
    problems: list[str] = []
    made_tables = [
        made
        for number, entry in enumerate(tables)
        for single in _singles(problems, entry, f"tables[{number}]")
        for made in _declared(problems, single, f"tables[{number}]", TableDeclaration, "rows", RowsDeclaration)
    ]
    made_figures = [
        made
        for number, entry in enumerate(figures)
        for made in _declared(problems, entry, f"figures[{number}]", FigureDeclaration, "curves", CurveDeclaration)
    ]
    names = Counter(made.name for made in [*made_tables, *made_figures])
    problems += [f"{name}: two tables or figures have this name" for name, count in names.items() if count > 1]
    refuse(problems)
    return made_tables, made_figures


def _singles(problems: list[str], entry: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """One table for each value of ``each``, with the value in its name, title and conditions."""
    plain = {name: value for name, value in entry.items() if name != EACH}
    values = entry.get(EACH)
    if values is None:
        return [plain]
    if not isinstance(values, list) or not values:
        problems.append(f"{where}.{EACH}: write a list of values, got {values!r}")
        return []
    return [_with_value(plain, value) for value in values]


def _with_value(declared: Any, value: Any) -> Any:
    if isinstance(declared, Mapping):
        return {name: _with_value(inner, value) for name, inner in declared.items()}
    if isinstance(declared, list):
        return [_with_value(inner, value) for inner in declared]
    if isinstance(declared, str):
        return value if declared == EACH else declared.replace("{each}", str(value))
    return declared


def _declared(
    problems: list[str],
    entry: Mapping[str, Any],
    where: str,
    cls: type[Declared],
    parts: Literal["rows", "curves"],
    part_cls: type[RowsDeclaration | CurveDeclaration],
) -> Iterator[Declared]:
    """A table with its rows, or a figure with its curves; problems if it is something else."""
    listed = entry.get(parts, [])
    if not (isinstance(listed, list) and all(isinstance(part, Mapping) for part in listed)):
        problems.append(f"{where}.{parts}: write a list of mappings, got {listed!r}")
        return
    made = [collect(problems, part_cls, part, where=f"{where}.{parts}[{number}]") for number, part in enumerate(listed)]
    for part in made:
        problems += part.problems(where) if part else []
    if whole := collect(problems, cls, {**entry, parts: [part for part in made if part]}, where=where):
        yield whole


def _unknown(conditions: Sequence[Conditions], what: str, known: Sequence[str], where: str) -> list[str]:
    names = [name for condition in conditions for name in condition if name not in known]
    return [f"{where}: {unknown_choice(what, name, known)}" for name in names]
