"""python -m analysis.paper source=DIR: the paper's tables and figures, from its logs or from a grid."""

if __name__ == "__main__":  # before the imports below: neither --help nor Ctrl-C waits for them
    from configs.entry import run_entry

    run_entry("paper", "analysis.paper.__main__")

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from analysis.logs.mapping import read_mapping
from analysis.logs.tree import source_folder
from analysis.origin import question_of
from analysis.paper.declarations import FigureDeclaration, TableDeclaration, parse_declarations
from analysis.paper.figures import PaperFigure, trace_figure
from analysis.paper.fill import fill_table
from analysis.paper.records import PaperRecords, from_grid, from_logs
from analysis.paper.tables import PaperTable
from jobs.atomic import write_json, write_text
from jobs.errors import ConfigError, RecordError
from jobs.files.folders import check_writable
from jobs.files.manifest import GridOptions
from jobs.validation import STRICT, build
from jobs.wording import counted, wrapped

_SKIPPED = "Not in these records"

Drawn = PaperTable | PaperFigure
_KINDS: tuple[tuple[str, type[Drawn], str], ...] = (("table", PaperTable, "md"), ("figure", PaperFigure, "pdf"))
"""What it is called, its class, and the kind of file to look at first."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PaperConfig(GridOptions):
    """Options of the command; see configs/paper.yaml, and configs/figures for the declarations."""

    source: str | None
    output: str | None
    mapping: str | None
    tables: list[dict[str, Any]]
    figures: list[dict[str, Any]]


def paper(values: dict[str, Any]) -> int:
    """Draw all that is declared and recorded; returns the exit code.

    Raises ConfigError, or RecordError if nothing can be drawn, before anything is written.
    """
    config = build(PaperConfig, values, where="")
    if (config.source is None) == (config.grid is None):
        raise ConfigError(["paper: give either source=DIR (published logs) or grid=NAME"])
    tables, figures = parse_declarations(config.tables, config.figures)
    records = (
        from_grid(config.store, config.grid)
        if config.grid is not None
        else from_logs(source_folder(config.source), read_mapping(config.mapping))
    )
    drawn, skipped = draw([*tables, *figures], records)
    if not drawn:
        raise RecordError("none of the declared tables and figures can be drawn from these records")
    default = config.store.root / "paper" if config.grid is None else config.store.paper_dir(config.grid)
    folder = Path(config.output) if config.output else default
    check_writable(folder, "output")
    for one in drawn:
        one.write(folder)
    write_text(folder / "index.md", index_text(drawn, skipped))
    # Each table and figure chooses its models among all, and shows no interval.
    where = {"tables": config.tables, "figures": config.figures}
    asked = {"grid": config.grid, "source": config.source, "mapping": config.mapping, "selection": "same"}
    write_json(folder / "question.json", question_of(records.models, **asked, confidence=None, where=where))
    print(summary(drawn, skipped))
    counts = [counted(sum(isinstance(one, kind) for one in drawn), noun) for noun, kind, _ in _KINDS]
    print(f"wrote {' and '.join(counts)} to {folder}, listed in index.md")
    return 0


def draw(
    declared: Sequence[TableDeclaration | FigureDeclaration], records: PaperRecords
) -> tuple[list[Drawn], list[str]]:
    """Tables and figures for every dataset, and a line for each of the paper's that these records do not allow."""
    drawn: list[Drawn] = []
    skipped = []
    for dataset in records.datasets:
        for one in declared:
            made: Drawn | None = (
                fill_table(one, dataset, records)
                if isinstance(one, TableDeclaration)
                else trace_figure(one, dataset, records)
            )
            if made is not None:
                drawn.append(made)
            elif dataset in one.numbers:
                skipped.append(f"{one.numbers[dataset]} ({dataset}): {one.title}")
    return drawn, skipped


def index_text(drawn: Sequence[Drawn], skipped: Sequence[str]) -> str:
    """The index as Markdown: what was drawn, how it compares with the paper, and what was not drawn."""
    sections = _sections(drawn, lambda one, suffix: f"[{one.title}]({one.name}.{suffix})")
    if skipped:
        sections[_SKIPPED] = list(skipped)
    listed = [[f"# {title}", "", *(f"- {entry}" for entry in entries), ""] for title, entries in sections.items()]
    return "\n".join(itertools.chain.from_iterable(listed))


def summary(drawn: Sequence[Drawn], skipped: Sequence[str]) -> str:
    """The index for the screen."""
    sections = {**_sections(drawn, lambda one, _: f"{one.name}: {one.title}"), _SKIPPED: skipped}
    blocks = [
        "\n".join([title, *(wrapped(f"  {entry}", "    ") for entry in entries)])
        for title, entries in sections.items()
        if entries
    ]
    return "\n\n".join(blocks) + "\n"


def _sections(drawn: Sequence[Drawn], entry: Callable[[Drawn, str], str]) -> dict[str, list[str]]:
    """The entries of what was drawn, each with a remark, under their titles."""
    return {
        f"{noun.capitalize()}s": [entry(one, suffix) + one.remark for one in drawn if isinstance(one, kind)]
        for noun, kind, suffix in _KINDS
    }
