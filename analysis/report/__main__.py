"""python -m analysis.report grid=NAME: one HTML page about a grid that needs no network."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below: neither --help nor Ctrl-C waits for them
    from configs.entry import run_entry

    run_entry("report", "analysis.report.__main__")

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from analysis.compare import compare, default_radii
from analysis.load import load_grid
from analysis.models import REPORT_COLUMNS
from analysis.origin import provenance_of, question_of, variant_name
from analysis.report.page import render
from analysis.statistics import Levels, envelope_frame
from jobs.atomic import write_atomically
from jobs.files.folders import check_writable
from jobs.files.store import Store
from jobs.specs.keys import Probability
from jobs.validation import STRICT, build
from jobs.wording import counted


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ReportConfig:
    """Options of the command; see configs/report.yaml."""

    grid: str | None
    results: Annotated[str, Field(min_length=1)]
    output: Annotated[str, Field(min_length=1)] | None
    where: dict[str, Any] | None
    confidence: Probability
    rho: Probability
    allow_partial: bool


def report(values: dict[str, Any]) -> int:
    """Write the page of a grid; returns the exit code.

    Raises:
        ConfigError: The configuration is wrong; nothing was written.
    """
    config = build(ReportConfig, values, where="")
    store = Store(Path(config.results))
    grid = load_grid(store, config.grid, where=config.where, allow_partial=config.allow_partial, more=REPORT_COLUMNS)
    asked = question_of(grid.models, where=config.where, selection="same", confidence=config.confidence)
    origin = {**provenance_of(store, grid), **{name: str(value) for name, value in asked.items()}}
    comparison = compare(grid)
    levels = Levels(confidence=config.confidence, rho=config.rho)
    frame = envelope_frame(comparison, default_radii(comparison), levels)
    page = render(comparison, frame, levels, origin)
    path = Path(config.output) if config.output else _path(store, grid.name, config)
    check_writable(path.parent, "output")
    write_atomically(path, lambda path: path.write_text(page, encoding="utf-8"))
    print(f"wrote {path} ({len(page.encode()) / 1e6:.1f} MB, {counted(len(grid.models), 'certified model')})")
    return 0


def _path(store: Store, grid: str, config: ReportConfig) -> Path:
    path = store.report_path(grid)
    return path.with_stem(variant_name(path.stem, {"where": config.where}, {"where": None}))
