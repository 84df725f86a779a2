"""python -m analysis.report grid=NAME: one HTML page about a grid that needs no network."""

if __name__ == "__main__":  # before the imports below: neither --help nor Ctrl-C waits for them
    from configs.entry import run_entry

    run_entry("report", "analysis.report.__main__")

from dataclasses import asdict
from typing import Any

from pydantic.dataclasses import dataclass

from analysis.compare import compare, default_radii
from analysis.load import ModelOptions
from analysis.models import CertifiedModel
from analysis.origin import provenance_of, question_of, variant_name
from analysis.report.page import render
from analysis.runs import Reading
from analysis.statistics import Levels, envelope_frame
from jobs.atomic import write_text
from jobs.specs.keys import Probability
from jobs.validation import STRICT, build
from jobs.wording import counted


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ReportConfig(ModelOptions):
    """Options of the command; see configs/report.yaml."""

    confidence: Probability
    rho: Probability


def report(values: dict[str, Any]) -> int:
    """Write the page of a grid; returns the exit code. Raises ConfigError before anything is written."""
    config = build(ReportConfig, values, where="")
    grid = config.load(Reading(keep=CertifiedModel.lean))
    asked = question_of(grid.models, where=config.where, selection="same", confidence=config.confidence, rho=config.rho)
    origin = {**provenance_of(config.store, grid), **{name: str(value) for name, value in asked.items()}}
    comparison = compare(grid)
    levels = Levels(confidence=config.confidence, rho=config.rho)
    page = render(comparison, envelope_frame(comparison, default_radii(comparison), levels), levels, origin)
    default = config.store.report_path(grid.name)
    path = config.output_or(default.with_stem(variant_name(default.stem, asdict(config))), is_file=True)
    write_text(path, page)
    print(f"wrote {path} ({len(page.encode()) / 1e6:.1f} MB, {counted(len(grid.models), 'certified model')})")
    return 0
