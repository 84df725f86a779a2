"""python -m analysis.export_tsv grid=NAME: certification records in the columns of the published logs."""

if __name__ == "__main__":  # before the imports below: neither --help nor Ctrl-C waits for them
    from configs.entry import run_entry

    run_entry("export_tsv", "analysis.export_tsv")

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from analysis.load import ModelOptions
from analysis.logs.files import HEADERS
from analysis.models import CertifiedModel
from analysis.runs import Reading
from jobs.atomic import write_text
from jobs.errors import RecordError
from jobs.validation import build
from jobs.wording import counted
from smoothing.radius import format_radius


def export_tsv(values: dict[str, Any]) -> int:
    """Write a log per certified model; returns the exit code. Raises ConfigError before anything is written."""
    config = build(ModelOptions, values, where="")
    grid = config.load(Reading(more=("label", "elapsed_s")))
    logs = by_log_path(grid.models)
    root = config.output_or(config.store.tsv_dir(grid.name))
    for path, model in logs.items():
        write_text(root / path, "".join(f"{line}\n" for line in log_lines(model)))
    print(f"wrote {counted(len(logs), 'log')} to {root}")
    return 0


def by_log_path(models: Sequence[CertifiedModel]) -> dict[Path, CertifiedModel]:
    """The models by the paths of their logs. Raises RecordError naming two models with the same path."""
    found: dict[Path, CertifiedModel] = {}
    for model in models:
        path = log_path(model)
        if (other := found.setdefault(path, model)) is not model:
            raise RecordError(
                f"{other.label} and {model.label} would have the same log, {path}; export them to two folders, "
                "each with where=... and output=DIR"
            )
    return found


def log_path(model: CertifiedModel) -> Path:
    """The path of a model's log. As in the published logs, folders are named after the noise and the split."""
    known = model.parameters
    trained = "unknown" if known.sigma_train is None else _sigma_text(known.sigma_train)
    name = f"sigma_{_sigma_text(known.sigma_cert)}"
    return Path(known.dataset, known.train_key, f"noise_{trained}", known.split, name)


def _sigma_text(sigma: float) -> str:
    """With two decimals as published, or with all decimals; never with an exponent, which the importer cannot read."""
    published = f"{sigma:.2f}"
    return published if float(published) == sigma else format_radius(sigma)


def log_lines(model: CertifiedModel) -> Iterator[str]:
    """The header, then one line per image. Radii have four decimals as in the published logs, but are rounded down."""
    yield "\t".join(HEADERS["certification"])
    columns = (
        model.column(name).tolist() for name in ("index", "label", "prediction", "radius", "correct", "elapsed_s")
    )
    for *names, radius, correct, elapsed in zip(*columns, strict=True):
        time = timedelta(seconds=round(elapsed, 6))
        yield "\t".join(map(str, [*names, format_radius(radius, 4), int(correct), time]))
