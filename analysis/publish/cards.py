"""The data card and the model cards of a published grid: Markdown, from the templates in this folder."""

from collections.abc import Mapping
from pathlib import Path
from string import Template

from tabulate import tabulate

from analysis.compare import Comparison, default_radii
from analysis.statistics import Levels, envelope_frame
from analysis.tables import all_tables
from jobs.specs.train import TrainSpec, train_fields
from jobs.wording import counted
from smoothing.radius import format_radius


def data_card(comparison: Comparison, origin: Mapping[str, str]) -> str:
    """The card of a grid: its certified table, what the files are, how to check and import them, their origin."""
    grid, frame = comparison.grid, envelope_frame(comparison, default_radii(comparison), Levels())
    return _filled(
        "data_card",
        grid=grid.name,
        count=counted(len(grid.models), "certified model"),
        tables=all_tables(comparison, frame, Levels(), "pipe").strip(),
        origin=_table(origin),
    )


def model_card(spec: TrainSpec, comparison: Comparison) -> str:
    """The card of one trained model: its certified accuracy, how it was trained, how to load it."""
    models = [model for model in comparison.grid.models if model.parameters.train_key == spec.key]
    radii = default_radii(comparison)
    known = ("sigma_cert", "n", "alpha")
    rows = [
        [
            *(str(getattr(model.parameters, name)) for name in known),
            *(f"{100 * accuracy:.1f}" for accuracy in model.curve(radii)),
        ]
        for model in models
    ]
    headers = [*known, *(f"r={format_radius(radius)}" for radius in radii)]
    return _filled(
        "model_card",
        key=spec.key,
        dataset=spec.dataset,
        accuracy=tabulate(rows, headers, "pipe", disable_numparse=True),
        settings=_table({name: str(value) for name, value in train_fields(spec).items() if value is not None}),
        sigma=str(models[0].parameters.sigma_cert if models else spec.sigma),
    )


def _filled(name: str, **values: str) -> str:
    template = (Path(__file__).parent / f"{name}.md").read_text(encoding="utf-8")
    return Template(template).substitute(values)


def _table(facts: Mapping[str, str]) -> str:
    return tabulate(list(facts.items()), ["what", "value"], "pipe", disable_numparse=True)
