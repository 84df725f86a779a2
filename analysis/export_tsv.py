"""python -m analysis.export_tsv grid=NAME: certification records in the columns of the published logs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from analysis.load import load_grid
from analysis.log_files import HEADERS
from analysis.models import Model
from configs.entry import EXIT_FAILED, run_entry
from jobs.atomic import write_atomically
from jobs.errors import RecordError
from jobs.store import Store
from jobs.validation import STRICT, build
from smoothing.radius import format_radius

DECIMALS = 4
"""Digits of a radius, as in the published logs; floored here, where those round to nearest."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExportConfig:
    """What to export; see configs/export_tsv.yaml."""

    grid: str | None
    results: Annotated[str, Field(min_length=1)]
    output: str | None
    where: dict[str, Any] | None
    allow_partial: bool


def export_tsv(values: dict[str, Any]) -> int:
    """Write one log per model; returns the exit code.

    Raises:
        ConfigError: The configuration is wrong; nothing was written.
    """
    config = build(ExportConfig, values, where="export_tsv")
    store = Store(Path(config.results))
    try:
        grid = load_grid(store, config.grid, where=config.where, allow_partial=config.allow_partial, with_votes=True)
    except RecordError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    root = Path(config.output) if config.output else store.tsv_dir(grid.name)
    for model in grid.models:
        write_atomically(root / log_path(model), partial(_write_log, model), lambda path: path.stat())
    print(f"wrote {len(grid.models)} logs to {root}")
    return 0


def _write_log(model: Model, path: Path) -> None:
    path.write_text("".join(f"{line}\n" for line in log_lines(model)), encoding="utf-8")


def log_path(model: Model) -> Path:
    """Where a model's log goes: as published, the noise and the split in the folders' names."""
    known = model.parameters
    trained = "unknown" if known.sigma_train is None else f"{known.sigma_train:.2f}"
    folder = Path(known.dataset, known.train_key, f"noise_{trained}", known.split)
    return folder / f"sigma_{known.sigma_cert:.2f}"


def log_lines(model: Model) -> Iterator[str]:
    """The header, and a line per image: idx label predict radius correct time."""
    yield "\t".join(HEADERS["certification"])
    names = ("index", "label", "prediction", "radius", "correct", "elapsed_s")
    for index, label, prediction, radius, correct, elapsed in zip(
        *(model.column(name).tolist() for name in names), strict=True
    ):
        time = timedelta(seconds=round(elapsed, 6))
        yield f"{index}\t{label}\t{prediction}\t{format_radius(radius, DECIMALS)}\t{int(correct)}\t{time}"


if __name__ == "__main__":
    run_entry("export_tsv", export_tsv)
