"""python -m analysis.envelope grid=NAME: the envelope of certified accuracy as table and figure."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below: neither --help nor Ctrl-C waits for them
    from configs.entry import run_entry

    run_entry("envelope", "analysis.envelope")

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field
from pydantic.dataclasses import dataclass

from analysis.alpha import Bounds, at_alpha
from analysis.candidates import SeedMode, SelectionMode
from analysis.compare import Comparison, Picture, compare, default_radii, even_radii, largest_radius, picture_of
from analysis.load import GridOptions
from analysis.models import ROW_COLUMNS, VOTE_COLUMNS, CertifiedModel
from analysis.origin import question_of, variant_name
from analysis.runs import Reading
from analysis.statistics import Frame, Levels, csv_text, envelope_frame, model_frame, probability_frame
from analysis.tables import (
    TableFormat,
    caption,
    envelope_table,
    partial_note,
    statistics_notes,
    statistics_table,
)
from jobs.atomic import write_json, write_text
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


class Answer(NamedTuple):
    """Everything that is printed and written about a grid, without its models, whose curves take much memory."""

    folder: Path  # to write to
    text: str  # to print
    files: dict[str, str]  # the text of each file by its name
    picture: Picture  # of the envelope
    probabilities: Frame  # as from ``statistics.probability_frame``
    question: dict[str, Any]  # the settings of the tables


def envelope(values: dict[str, Any]) -> int:
    """Print and write a grid's envelope; returns the exit code. Raises ConfigError before anything is written."""
    config = build(EnvelopeConfig, values, where="")
    if config.alpha is not None and config.alpha < MIN_ALPHA:
        raise ConfigError(f"alpha: {config.alpha} is too small: no bound is sound below {MIN_ALPHA}")
    if config.radii is not None and config.step is not None:
        raise ConfigError(["envelope: give radii or step, not both"])
    answer = answer_of(config)
    paths = write_answer(answer)
    print(answer.text)
    print("\n".join(f"wrote {path}" for path in paths))
    return 0


def answer_of(config: EnvelopeConfig) -> Answer:
    """Compute everything that is printed and written about a grid."""
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
    del options["alpha"]  # only the models' message counts
    probabilities = probability_frame(grid.models)
    return Answer(
        folder=folder,
        text=_text(comparison, frame, levels, "simple"),
        files={
            "envelope.csv": csv_text(frame),
            "envelope.md": _text(comparison, frame, levels, "pipe"),
            "envelope.tex": f"% {caption(comparison, frame, levels)}\n"
            f"{envelope_table(comparison, frame, 'latex_booktabs')}\n",
            "models.csv": csv_text(model_frame(grid.models)),
            **({"p_lower.csv": csv_text(probabilities)} if probabilities["share"].size else {}),
        },
        picture=picture_of(comparison, note=partial_note(comparison) if grid.num_missing else ""),
        probabilities=probabilities,
        question=question_of(grid.models, **options),
    )


def write_answer(answer: Answer) -> list[Path]:
    """Write tables and figures, and their settings; returns the paths."""
    from analysis.figures import envelope_figure, probability_figure, write_figure  # matplotlib is slow to import

    folder = answer.folder
    for name, text in answer.files.items():
        write_text(folder / name, text)
    paths = [folder / name for name in answer.files]
    paths += write_figure(envelope_figure(answer.picture), folder, "envelope")
    if answer.probabilities["share"].size:
        paths += write_figure(probability_figure(answer.probabilities), folder, "p_lower")
    write_json(folder / "question.json", answer.question)
    return [*paths, folder / "question.json"]


def _radii(comparison: Comparison, config: EnvelopeConfig) -> list[float]:
    if config.step is not None:
        return even_radii(largest_radius(comparison), config.step)
    return default_radii(comparison) if config.radii is None else sorted(config.radii)


def _text(comparison: Comparison, frame: Frame, levels: Levels, table_format: TableFormat) -> str:
    note, notes = caption(comparison, frame, levels), statistics_notes(comparison, frame, levels)
    if table_format == "simple":
        note, notes = wrapped(note), [wrapped(line, indent="  ") for line in notes]
    else:
        notes = [f"- {line}" for line in notes]
    tables = [table(comparison, frame, table_format) for table in (envelope_table, statistics_table)]
    return "\n\n".join([tables[0], note, tables[1], "\n".join(notes)]) + "\n"
