"""python -m analysis.paper source=DIR: the paper's tables and figures, from its logs or from a grid."""

if __name__ == "__main__":  # before the imports below: neither --help nor Ctrl-C waits for them
    from configs.entry import run_entry

    run_entry("paper", "analysis.paper.__main__")

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from analysis.logs.mapping import read_mapping
from analysis.logs.tree import source_folder
from analysis.origin import question_of
from analysis.paper.declarations import FigureDeclaration, TableDeclaration, parse_declarations
from analysis.paper.figures import PaperFigure, figure_frame, trace_figure
from analysis.paper.fill import fill_table
from analysis.paper.records import PaperRecords, from_grid, from_logs
from analysis.paper.tables import IN_CSV, PaperTable, table_latex, table_markdown
from analysis.statistics import csv_text
from jobs.atomic import write_json, write_text
from jobs.errors import ConfigError, RecordError
from jobs.files.folders import check_writable
from jobs.files.store import Store
from jobs.validation import STRICT, build
from jobs.wording import counted, wrapped

_SKIPPED = "Not in these records"

Drawn = PaperTable | PaperFigure
_KINDS: tuple[tuple[type[Drawn], str], ...] = ((PaperTable, "table"), (PaperFigure, "figure"))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PaperConfig:
    """Options of the command; see configs/paper.yaml, and configs/figures for the declarations."""

    source: str | None
    grid: str | None
    results: Annotated[str, Field(min_length=1)]
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
    store = Store(Path(config.results))
    records = (
        from_grid(store, config.grid)
        if config.grid is not None
        else from_logs(source_folder(config.source), read_mapping(config.mapping))
    )
    declared: list[TableDeclaration | FigureDeclaration] = [*tables, *figures]
    drawn, skipped = draw(declared, records)
    if not drawn:
        raise RecordError("none of the declared tables and figures can be drawn from these records")
    folder = Path(config.output) if config.output else _folder(store, config.grid)
    check_writable(folder, "output")
    for one in drawn:
        _write(one, folder)
    write_text(folder / "index.md", index_text(drawn, skipped))
    origin = {"grid": config.grid, "source": config.source, "mapping": config.mapping}
    # Each table and figure chooses its models among all, and shows no interval.
    where = {"tables": config.tables, "figures": config.figures}
    asked = {"selection": "same", "confidence": None, "where": where}
    write_json(folder / "question.json", question_of(records.models, **origin, **asked))
    print(summary(drawn, skipped))
    counts = [counted(sum(isinstance(one, kind) for one in drawn), noun) for kind, noun in _KINDS]
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
    lines = []
    for kind, noun in _KINDS:
        suffix = "md" if kind is PaperTable else "pdf"
        links = [f"- [{one.title}]({one.name}.{suffix}){_remark(one)}" for one in drawn if isinstance(one, kind)]
        lines += [f"# {noun.capitalize()}s", "", *links, ""]
    if skipped:
        lines += [f"# {_SKIPPED}", "", *(f"- {entry}" for entry in skipped), ""]
    return "\n".join(lines)


def summary(drawn: Sequence[Drawn], skipped: Sequence[str]) -> str:
    """The index for the screen."""
    sections = {
        f"{noun.capitalize()}s": [f"{one.name}: {one.title}{_remark(one)}" for one in drawn if isinstance(one, kind)]
        for kind, noun in _KINDS
    } | {_SKIPPED: list(skipped)}
    blocks = [[title, *(wrapped(f"  {entry}", "    ") for entry in entries)] for title, entries in sections.items()]
    return "\n\n".join("\n".join(block) for block in blocks if len(block) > 1) + "\n"


def _remark(drawn: Drawn) -> str:
    if isinstance(drawn, PaperTable):
        return f": {drawn.comparison}" if drawn.num_compared else ""
    absent = f"; no records for {', '.join(drawn.absent)}" if drawn.absent else ""
    return f": {counted(len(drawn.curves), 'curve')}{absent}"


def _folder(store: Store, grid: str | None) -> Path:
    return store.root / "paper" if grid is None else store.paper_dir(grid)


def _write(drawn: Drawn, folder: Path) -> None:
    if isinstance(drawn, PaperTable):
        csv = csv_text({name: drawn.cells[name] for name in IN_CSV})
        texts = {"csv": csv, "md": table_markdown(drawn), "tex": table_latex(drawn)}
    else:
        from analysis.figures import curves_figure, write_figure  # matplotlib is slow to import

        texts = {"csv": csv_text(figure_frame(drawn))}
        write_figure(curves_figure(drawn.curves, max_radius=drawn.max_radius), folder, drawn.name)
    for suffix, text in texts.items():
        write_text(folder / f"{drawn.name}.{suffix}", text)
