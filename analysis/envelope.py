"""python -m analysis.envelope grid=NAME: the envelope of certified accuracy as table and figure."""

if __name__ == "__main__":  # before the imports below: neither --help nor Ctrl-C waits for them
    from configs.entry import run_entry

    run_entry("envelope", "analysis.envelope")

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from analysis.alpha import Bounds, at_alpha
from analysis.candidates import SeedMode, SelectionMode
from analysis.compare import Comparison, compare, default_radii, even_radii, largest_radius
from analysis.load import ModelOptions
from analysis.models import ROW_COLUMNS, VOTE_COLUMNS, CertifiedModel
from analysis.origin import question_of, variant_name
from analysis.runs import Reading
from analysis.statistics import Frame, Levels, csv_text, envelope_frame, model_frame, probability_frame
from analysis.tables import all_tables, caption, envelope_table
from jobs.atomic import write_json, write_text
from jobs.errors import ConfigError
from jobs.specs.keys import Probability
from jobs.validation import STRICT, build
from smoothing.bounds import MIN_ALPHA


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EnvelopeConfig(ModelOptions):
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

    grid = config.load(Reading(more=VOTE_COLUMNS if config.alpha else (), keep=keep))
    comparison = compare(grid, config.selection, config.seeds)
    levels = Levels(confidence=config.confidence, rho=config.rho)
    radii = default_radii(comparison) if config.radii is None else sorted(config.radii)
    if config.step is not None:
        radii = even_radii(largest_radius(comparison), config.step)
    frame = envelope_frame(comparison, radii, levels)
    options = asdict(config)
    default = config.store.envelope_dir(grid.name)
    folder = config.output_or(default.with_name(variant_name(default.name, options)))
    del options["alpha"]  # the models contain it
    paths = write_envelope(comparison, frame, folder, levels)
    write_json(folder / "question.json", question_of(grid.models, **options))
    print(all_tables(comparison, frame, levels, "simple"))
    print("\n".join(f"wrote {path}" for path in [*paths, folder / "question.json"]))
    return 0


def write_envelope(comparison: Comparison, frame: Frame, folder: Path, levels: Levels) -> list[Path]:
    """Write tables and figures to a folder; returns their paths."""
    from analysis.figures import envelope_figure, probability_figure, write_figure  # matplotlib is slow to import

    note, models = caption(comparison, frame, levels), comparison.grid.models
    texts = {
        "envelope.csv": csv_text(frame),
        "envelope.md": all_tables(comparison, frame, levels, "pipe"),
        "envelope.tex": f"% {note}\n{envelope_table(comparison, frame, 'latex_booktabs')}\n",
        "models.csv": csv_text(model_frame(models)),
    }
    figures, probabilities = {"envelope": envelope_figure(comparison)}, probability_frame(models)
    if probabilities["share"].size:
        texts["p_lower.csv"] = csv_text(probabilities)
        figures["p_lower"] = probability_figure(probabilities)
    for name, text in texts.items():
        write_text(folder / name, text)
    written = [path for name, figure in figures.items() for path in write_figure(figure, folder, name)]
    return [*(folder / name for name in texts), *written]
