"""python -m analysis.paired grid=NAME radius=R: compare two certified models on the same images (McNemar)."""

if __name__ == "__main__":  # before the imports below: neither --help nor Ctrl-C waits for them
    from configs.entry import run_entry

    run_entry("paired", "analysis.paired")

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass
from tabulate import tabulate

from analysis.candidates import are_exact, candidates_of, exact_step
from analysis.load import load_grid
from analysis.models import CertifiedModel, check_comparable, image_set
from analysis.selection import Where
from jobs.errors import ConfigError, RecordError
from jobs.files.manifest import GridOptions
from jobs.validation import STRICT, build, unknown_choice
from jobs.wording import counted, wrapped
from smoothing.paired import PairedComparison, compare_paired
from smoothing.radius import format_radius

_BEST_OF = "the best of"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PairedConfig(GridOptions):
    """Options of the command; see configs/paired.yaml."""

    grid_b: str | None
    model_a: str | None
    model_b: str | None
    where: dict[str, Any] | None
    where_b: dict[str, Any] | None
    radius: Annotated[float, Field(ge=0)]
    allow_partial: bool


def paired(values: dict[str, Any]) -> int:
    """Print the comparison; returns the exit code. Raises ConfigError if there is no such grid or model."""
    config = build(PairedConfig, values, where="")
    if all(value is None for value in (config.grid_b, config.model_a, config.model_b, config.where_b)):
        raise ConfigError(
            "paired: choose what to compare, with model_a and model_b, with where and where_b, or with grid_b"
        )
    first = _selected(config, "model_a", config.grid, config.model_a, config.where)
    grid_b = config.grid if config.grid_b is None else config.grid_b
    where_b = config.where if config.where_b is None else config.where_b
    second = _selected(config, "model_b", grid_b, config.model_b, where_b)
    counts = compare_models(first[0], second[0], config.radius)
    print(_text(first, second, counts, config.radius))
    return 0


def compare_models(first: CertifiedModel, second: CertifiedModel, radius: float) -> PairedComparison:
    """Which of two models certifies more images at a radius.

    Raises RecordError naming both if they are the same, differ in images, n or alpha, or cannot be compared there.
    """
    models = (first, second)
    if first.parameters == second.parameters:
        raise RecordError(
            f"A and B are the same certified model, {first.label}; choose another with model_a, model_b or where_b"
        )
    remedy = "choose two models with the same images, n and alpha"
    sets = [image_set(model.indices) for model in models]
    check_comparable([model.parameters for model in models], sets, remedy)
    if not np.array_equal(first.indices, second.indices):
        raise RecordError(f"{first.label} and {second.label} are certified on different images and cannot be compared")
    _check_radius(models, radius)
    return compare_paired(*(model.column("correct") & (model.column("radius") >= radius) for model in models))


def _check_radius(models: Sequence[CertifiedModel], radius: float) -> None:
    known = [model.parameters for model in models]
    names = " and ".join(f"{one.label} (mode={one.parameters.mode})" for one in models)
    step = exact_step(known)
    if step is not None and not are_exact(radius, step):
        raise RecordError(
            f"radius {radius:g} cannot be compared: sampling was stopped by stop_rule=grid, so accuracy is exact only "
            f"at multiples of {step:g} ({names}); use radius={max(1, round(radius / step)) * step:g}"
        )
    rules = {(model.stop_rule, model.radius_step) for model in known if model.stop_rule != "grid"}
    if len(rules | {(None, None)} if step is not None else rules) > 1:
        raise RecordError(
            f"{names} were certified with different stop rules, and stop_rule=curve ends before the final radius; "
            "certify both with the same stop rule"
        )


def _selected(
    config: PairedConfig, key: str, grid_name: str | None, label: str | None, where: Where | None
) -> tuple[CertifiedModel, str]:
    """A model and how it was selected."""
    grid = load_grid(config.store, grid_name, where=where, allow_partial=config.allow_partial)
    if label is not None:
        by_label = {model.label: model for model in grid.models}
        if label not in by_label:
            choice = unknown_choice("certified model", label, sorted(by_label))
            raise ConfigError([f"{key} (grid {grid.name}): {choice}"])
        return by_label[label], f"{grid.name}: {label}"
    candidates = candidates_of(grid.models, grid.name)
    winner = candidates.winner_at(config.radius)
    if winner is None:
        raise RecordError(f"grid {grid.name}: no certified model certifies any image at radius {config.radius:g}")
    if len(winner.replicates) > 1:
        names = ", ".join(model.label for model in winner.replicates)
        raise RecordError(
            f"grid {grid.name}: the best at radius {config.radius:g} is {winner.name}, but a test compares single "
            f"models; choose one with {key}: {names}"
        )
    searched = f", {_BEST_OF} {len(candidates.by_label):,} certified models at this radius"
    return winner.replicates[0], f"{grid.name}: {winner.label}{searched if len(candidates.by_label) > 1 else ''}"


def _text(
    first: tuple[CertifiedModel, str], second: tuple[CertifiedModel, str], counts: PairedComparison, radius: float
) -> str:
    names = {"both": "both A and B", "only_first": "only A", "only_second": "only B", "neither": "neither"}
    cells = [[text, getattr(counts, name)] for name, text in names.items()]
    table = tabulate(cells, headers=["certified correct", "images"])
    difference = (
        f"A - B at radius {format_radius(radius)}: {100 * counts.difference:+.2f} percentage points on "
        f"{counted(counts.num_images, 'image')}"
    )
    least = 1e-300  # a smaller p is only known to be smaller, but it is never 0
    p_text = f"= {counts.p_value:.3g}" if counts.p_value >= least else f"< {least:g}"
    test = f"McNemar's exact test: p {p_text}"
    selected = [letter for letter, (_, how) in (("A", first), ("B", second)) if _BEST_OF in how]
    if selected:
        verb = "was" if len(selected) == 1 else "were"
        test += f"; {' and '.join(selected)} {verb} selected on these same images, so p is optimistic"
    selection = [wrapped(f"{letter}  {how}", "   ") for letter, (_, how) in (("A", first), ("B", second))]
    return "\n".join([*selection, "", table, "", wrapped(difference), wrapped(test)])
