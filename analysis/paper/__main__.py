"""python -m analysis.paper source=DIR: the paper's tables and figures, from its logs or from a grid."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below: neither --help nor Ctrl-C waits for them
    from configs.entry import run_entry

    run_entry("paper", "analysis.paper.__main__")

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from analysis.logs.mapping import read_mapping
from analysis.logs.tree import source_folder
from analysis.origin import question_of, write_question
from analysis.paper.declarations import FigureDeclaration, TableDeclaration, parse_declarations
from analysis.paper.figures import PaperFigure, figure_frame, trace_figure
from analysis.paper.fill import fill_table
from analysis.paper.records import PaperRecords, from_grid, from_logs
from analysis.paper.tables import PaperTable, table_frame, table_latex, table_markdown
from configs.entry import EXIT_FAILED
from jobs.atomic import write_atomically
from jobs.errors import ConfigError
from jobs.files.folders import check_writable
from jobs.files.store import Store
from jobs.validation import STRICT, build
from jobs.wording import counted, wrapped

_SKIPPED = "Not in these records"

Writers = dict[str, Callable[[Path], object]]


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
    """Draw every declared table and figure that the records allow; returns the exit code.

    Raises:
        ConfigError: The configuration is wrong; nothing was written.
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
    filled, traced, skipped = draw(tables, figures, records)
    if not filled and not traced:
        print("error: none of the declared tables and figures can be drawn from these records", file=sys.stderr)
        return EXIT_FAILED
    folder = Path(config.output) if config.output else _folder(store, config.grid)
    check_writable(folder, "output")
    write_all(filled, traced, skipped, folder)
    origin = {"grid": config.grid, "source": config.source, "mapping": config.mapping}
    write_question(folder / "question.json", question_of(records.models, **origin))
    print(summary(filled, traced, skipped))
    print(f"wrote {counted(len(filled), 'table')} and {counted(len(traced), 'figure')} to {folder}, listed in index.md")
    return 0


def draw(
    tables: list[TableDeclaration], figures: list[FigureDeclaration], records: PaperRecords
) -> tuple[list[PaperTable], list[PaperFigure], list[str]]:
    """Fill every table and trace every figure for every dataset.

    Returns:
        Tables, figures, and one line for each of the paper's that cannot be drawn from these records.
    """
    filled, traced, skipped = [], [], []
    for dataset in records.datasets:
        for table_declared in tables:
            table = fill_table(table_declared, dataset, records)
            if table is not None:
                filled.append(table)
            elif dataset in table_declared.numbers:
                skipped.append(f"{table_declared.numbers[dataset]} ({dataset}): {table_declared.title}")
        for figure_declared in figures:
            figure = trace_figure(figure_declared, dataset, records)
            if figure is not None:
                traced.append(figure)
            elif dataset in figure_declared.numbers:
                skipped.append(f"{figure_declared.numbers[dataset]} ({dataset}): {figure_declared.title}")
    return filled, traced, skipped


def write_all(tables: list[PaperTable], figures: list[PaperFigure], skipped: list[str], folder: Path) -> None:
    """Write every file atomically, the index last."""
    from analysis.figures import curves_figure, save_figure  # matplotlib is slow to import

    for table in tables:
        _write(folder, table.name, _table_writers(table))
    for figure in figures:
        drawn = curves_figure(figure.curves, max_radius=figure.max_radius)
        _write(
            folder,
            figure.name,
            {
                "csv": partial(figure_frame(figure).to_csv, index=False),
                "pdf": partial(save_figure, drawn, file_format="pdf"),
                "png": partial(save_figure, drawn, file_format="png"),
            },
        )
    _write(folder, "index", {"md": lambda path: _write_text(path, index_text(tables, figures, skipped))})


def index_text(tables: list[PaperTable], figures: list[PaperFigure], skipped: list[str]) -> str:
    """What was drawn, how it compares with the paper, and what was not drawn, as Markdown."""
    links = [f"- [{table.title}]({table.name}.md){_remark(table)}" for table in tables]
    lines = ["# Tables", "", *links, "", "# Figures", ""]
    lines += [f"- [{figure.title}]({figure.name}.pdf){_remark(figure)}" for figure in figures]
    if skipped:
        lines += ["", f"# {_SKIPPED}", "", *(f"- {entry}" for entry in skipped)]
    return "\n".join(lines) + "\n"


def summary(tables: list[PaperTable], figures: list[PaperFigure], skipped: list[str]) -> str:
    """The index for the screen."""
    sections = {
        "Tables": [f"{table.name}: {table.title}{_remark(table)}" for table in tables],
        "Figures": [f"{figure.name}: {figure.title}{_remark(figure)}" for figure in figures],
        _SKIPPED: skipped,
    }
    blocks = [[title, *(wrapped(f"  {entry}", "    ") for entry in entries)] for title, entries in sections.items()]
    return "\n\n".join("\n".join(block) for block in blocks if len(block) > 1) + "\n"


def _remark(drawn: PaperTable | PaperFigure) -> str:
    if isinstance(drawn, PaperTable):
        return f": {drawn.comparison}" if drawn.num_compared else ""
    absent = f"; no records for {', '.join(drawn.absent)}" if drawn.absent else ""
    return f": {counted(len(drawn.curves), 'curve')}{absent}"


def _folder(store: Store, grid: str | None) -> Path:
    return store.root / "paper" if grid is None else store.paper_dir(grid)


def _table_writers(table: PaperTable) -> Writers:
    return {
        "csv": lambda path: table_frame(table).to_csv(path, index=False),
        "md": lambda path: _write_text(path, table_markdown(table)),
        "tex": lambda path: _write_text(path, table_latex(table)),
    }


def _write(folder: Path, name: str, writers: Writers) -> None:
    for suffix, write in writers.items():
        write_atomically(folder / f"{name}.{suffix}", write)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
