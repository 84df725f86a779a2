"""python -m analysis.envelope grid=NAME: the envelope as table and figure."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import Field
from pydantic.dataclasses import dataclass

from analysis.compare import Comparison, compare, default_radii, envelope_frame
from analysis.load import load_grid
from analysis.tables import caption, envelope_table
from configs.entry import EXIT_FAILED, run_entry
from jobs.atomic import write_atomically
from jobs.errors import RecordError
from jobs.store import Store
from jobs.validation import STRICT, build


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EnvelopeConfig:
    """What to draw; see configs/envelope.yaml."""

    grid: str | None
    results: Annotated[str, Field(min_length=1)]
    radii: list[Annotated[float, Field(ge=0)]] | None
    confidence: Annotated[float, Field(gt=0, lt=1)]
    allow_partial: bool


def envelope(values: dict[str, Any]) -> int:
    """Print and write the envelope of a grid; returns the exit code.

    Raises:
        ConfigError: The configuration is wrong; nothing was written.
    """
    config = build(EnvelopeConfig, values, where="envelope")
    store = Store(Path(config.results))
    try:
        grid = load_grid(store, config.grid, allow_partial=config.allow_partial)
    except RecordError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    comparison = compare(grid)
    radii = default_radii(comparison) if config.radii is None else sorted(config.radii)
    frame = envelope_frame(comparison, radii, config.confidence)
    paths = write_envelope(comparison, frame, store.envelope_dir(grid.name), config.confidence)
    print(envelope_table(comparison, frame, "simple"))
    print(f"\n{textwrap.fill(caption(comparison, config.confidence), 100)}\n")
    print("\n".join(f"wrote {path}" for path in paths))
    return 0


def write_envelope(comparison: Comparison, frame: pd.DataFrame, folder: Path, confidence: float) -> list[Path]:
    """Write envelope.csv, .md, .tex, .png and .pdf to a folder; returns their paths."""
    from analysis.figures import envelope_figure, save_figure  # matplotlib is slow to import

    figure, note = envelope_figure(comparison), caption(comparison, confidence)
    writers: dict[str, Callable[[Path], object]] = {
        "csv": lambda path: frame.to_csv(path, index=False),
        "md": lambda path: path.write_text(f"{envelope_table(comparison, frame, 'pipe')}\n\n{note}\n"),
        "tex": lambda path: path.write_text(f"% {note}\n{envelope_table(comparison, frame, 'latex_booktabs')}\n"),
        "png": lambda path: save_figure(figure, path, "png"),
        "pdf": lambda path: save_figure(figure, path, "pdf"),
    }
    paths = []
    for suffix, write in writers.items():
        path = folder / f"envelope.{suffix}"
        write_atomically(path, write, lambda written: written.stat())
        paths.append(path)
    return paths


if __name__ == "__main__":
    run_entry("envelope", envelope)
