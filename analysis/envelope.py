"""python -m analysis.envelope grid=NAME: the envelope of certified accuracy as table and figure."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below: neither --help nor Ctrl-C waits for them
    from configs.entry import run_entry

    run_entry("envelope", "analysis.envelope")

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import Field
from pydantic.dataclasses import dataclass

from analysis.alpha import Bounds, at_alpha
from analysis.candidates import SeedMode, SelectionMode
from analysis.compare import Comparison, compare, default_radii, even_radii, largest_radius
from analysis.load import GridOptions
from analysis.models import ROW_COLUMNS, VOTE_COLUMNS, CertifiedModel
from analysis.origin import question_of, variant_name
from analysis.runs import Reading
from analysis.statistics import Levels, envelope_frame, model_frame, probability_frame
from analysis.tables import TableFormat, caption, envelope_table, statistics_notes, statistics_table
from jobs.atomic import write_atomically, write_json
from jobs.errors import ConfigError
from jobs.specs.keys import Probability
from jobs.validation import STRICT, build
from jobs.wording import wrapped
from smoothing.bounds import MIN_ALPHA


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EnvelopeConfig(GridOptions):
    """Options of the command; see configs/envelope.yaml."""

    radii: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)] | None
    step: Annotated[float, Field(gt=0)] | None
    alpha: Probability | None
    selection: SelectionMode
    seeds: SeedMode
    confidence: Probability
    rho: Probability


def envelope(values: dict[str, Any]) -> int:
    """Print and write a grid's envelope; returns the exit code. Raises ConfigError before anything is written."""
    config = build(EnvelopeConfig, values, where="")
    if config.alpha is not None and config.alpha < MIN_ALPHA:
        raise ConfigError(f"alpha: {config.alpha} is too small: no bound is sound below {MIN_ALPHA}")
    if config.radii is not None and config.step is not None:
        raise ConfigError(["envelope: give radii or step, not both"])
    bounds: Bounds = {}

    def keep(model: CertifiedModel) -> CertifiedModel:
        chosen = model if config.alpha is None else at_alpha(model, config.alpha, bounds)
        return chosen.lean(ROW_COLUMNS) if config.selection == "split" else chosen.lean()

    grid = config.load(Reading(more=VOTE_COLUMNS if config.alpha else (), is_summed=True, keep=keep))
    comparison = compare(grid, config.selection, config.seeds)
    levels = Levels(confidence=config.confidence, rho=config.rho)
    frame = envelope_frame(comparison, _radii(comparison, config), levels)
    options = asdict(config)
    default = config.store.envelope_dir(grid.name)
    folder = config.output_or(default.with_name(variant_name(default.name, options)))
    del options["alpha"]  # that of the models counts
    paths = write_envelope(comparison, frame, folder, levels, question_of(grid.models, **options))
    print(_text(comparison, frame, levels, "simple"))
    print("\n".join(f"wrote {path}" for path in paths))
    return 0


def write_envelope(
    comparison: Comparison, frame: pd.DataFrame, folder: Path, levels: Levels, question: Mapping[str, Any]
) -> list[Path]:
    """Write tables and figures to a folder, and beside them what they are about; returns their paths."""
    from analysis.figures import envelope_figure, probability_figure, save_figure  # matplotlib is slow to import

    figure, note = envelope_figure(comparison), caption(comparison, frame, levels)
    markdown = _text(comparison, frame, levels, "pipe")
    latex = f"% {note}\n{envelope_table(comparison, frame, 'latex_booktabs')}\n"
    models, probabilities = model_frame(comparison.grid.models), probability_frame(comparison.grid.models)
    writers: dict[str, Callable[[Path], object]] = {
        "envelope.csv": lambda path: frame.to_csv(path, index=False),
        "envelope.md": lambda path: path.write_text(markdown, encoding="utf-8"),
        "envelope.tex": lambda path: path.write_text(latex, encoding="utf-8"),
        "envelope.png": lambda path: save_figure(figure, path, "png"),
        "envelope.pdf": lambda path: save_figure(figure, path, "pdf"),
        "models.csv": lambda path: models.to_csv(path, index=False),
    }
    if len(probabilities):
        shares = probability_figure(probabilities)
        writers |= {
            "p_lower.csv": lambda path: probabilities.to_csv(path, index=False),
            "p_lower.png": lambda path: save_figure(shares, path, "png"),
            "p_lower.pdf": lambda path: save_figure(shares, path, "pdf"),
        }
    for name, write in writers.items():
        write_atomically(folder / name, write)
    write_json(folder / "question.json", question)
    return [folder / name for name in (*writers, "question.json")]


def _radii(comparison: Comparison, config: EnvelopeConfig) -> list[float]:
    if config.step is not None:
        return even_radii(largest_radius(comparison), config.step)
    return default_radii(comparison) if config.radii is None else sorted(config.radii)


def _text(comparison: Comparison, frame: pd.DataFrame, levels: Levels, table_format: TableFormat) -> str:
    note, notes = caption(comparison, frame, levels), statistics_notes(comparison, frame, levels)
    if table_format == "simple":
        note, notes = wrapped(note), [wrapped(line, indent="  ") for line in notes]
    else:
        notes = [f"- {line}" for line in notes]
    tables = [table(comparison, frame, table_format) for table in (envelope_table, statistics_table)]
    return "\n\n".join([tables[0], note, tables[1], "\n".join(notes)]) + "\n"
