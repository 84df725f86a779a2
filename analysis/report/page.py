"""The report's HTML: a template, the data as JSON, and Plotly's JavaScript, in one file."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pandas as pd
from plotly.offline import get_plotlyjs

from analysis.candidates import candidates_of
from analysis.compare import BASELINE_METHOD, Comparison, largest_radius
from analysis.exact import exact_radii
from analysis.models import CertifiedModel
from analysis.statistics import Levels, abstention, average_radius
from analysis.tables import caption, partial_note, statistics_notes
from jobs.wording import counted
from smoothing.radius import format_radius

_FOLDER = Path(__file__).parent
_NUM_POINTS = 400  # of each curve: finer than a screen shows
_NUM_BINS = 25

_ROUNDINGS = {
    **dict.fromkeys(("lower", "band_lower", "high_probability", "average_radius"), ROUND_FLOOR),
    **dict.fromkeys(("upper", "band_upper", "monte_carlo_upper"), ROUND_CEILING),
}


def render(comparison: Comparison, frame: pd.DataFrame, levels: Levels, provenance: Mapping[str, str]) -> str:
    """The page.

    Args:
        comparison: The grid.
        frame: Its table of statistics.
        levels: Error levels of the table.
        provenance: Names and values to show.
    """
    grid = comparison.grid
    num_images = sum(len(model.rows) for model in grid.models)
    num_trained = len({model.parameters.train_key for model in grid.models})
    cost_s = sum(cost for model in grid.models if (cost := _cost_s(model)) is not None)
    template = Template((_FOLDER / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=html.escape(f"Grid {grid.name}"),
        summary=html.escape(
            f"{counted(len(grid.models), 'certified model')} ({counted(num_trained, 'model')}), "
            f"{counted(num_images, 'certificate')}, {cost_s / 3600:.2f} hours of certification"
        ),
        warning=_warning(comparison),
        caption=html.escape(
            " ".join([caption(comparison, frame, levels), *statistics_notes(comparison, frame, levels)])
        ),
        table=_statistics(frame),
        runs=_runs(grid.models),
        provenance=_table(["name", "value"], provenance.items(), num_text=2),
        data=json.dumps(page_data(comparison, levels)).replace("</", "<\\/"),
        script=(_FOLDER / "page.js").read_text(encoding="utf-8"),
        plotly=get_plotlyjs(),
    )


def page_data(comparison: Comparison, levels: Levels) -> dict[str, Any]:
    """The data of the page's script: each candidate's parameters, and its (mean) counts at common radii."""
    models = comparison.grid.models
    everyone = candidates_of(models, comparison.grid.name, seeds=comparison.seeds)
    largest = largest_radius(comparison)
    if comparison.baseline is not None and comparison.baseline.envelope.breakpoints.size:
        largest = max(largest, float(comparison.baseline.envelope.breakpoints[-1]))
    # Radii are rounded before images are counted, so that a count holds at the radius shown.
    radii = np.round(np.linspace(0.0, largest, _NUM_POINTS + 1), 6) if largest else np.zeros(1)
    if everyone.exact_step is not None:
        radii = exact_radii(largest + everyone.exact_step, everyone.exact_step)
    counts = np.stack([curve(radii) * everyone.num_images for curve in everyone.curves.values()]).astype("<f4")
    names = ("method", "attack", "sigma_cert", "epsilon", "m_train", "num_steps")
    return {
        "name": comparison.candidates.name,
        "baseline": BASELINE_METHOD,
        "has_others": comparison.baseline is not None,
        "apart": _methods_apart(comparison),
        "num_images": everyone.num_images,
        "is_step": everyone.exact_step is None,
        "error": round(1 - levels.confidence, 12),
        "radii": radii.tolist(),
        "models": [
            {"label": one.name, **{name: _short(getattr(one.parameters, name)) for name in names}}
            for one in everyone.by_label.values()
        ],
        "counts": base64.b64encode(counts.tobytes()).decode(),
        "bins": [round((number + 0.5) / _NUM_BINS, 4) for number in range(_NUM_BINS)],
        "bounds": _bounds(models),
    }


def _methods_apart(comparison: Comparison) -> list[str]:
    """Methods in the grid that belong neither to the candidates nor to the baseline."""
    compared = {model.parameters.method for model in comparison.candidates.models} | {BASELINE_METHOD}
    return sorted({model.parameters.method or "unknown" for model in comparison.grid.models} - compared)


def _bounds(models: Sequence[CertifiedModel]) -> list[dict[str, Any]]:
    """For each sigma, the share of p_lower in each bin, in percent; empty if the records contain no bounds."""
    by_sigma: dict[float, list[CertifiedModel]] = {}
    for model in models:
        if model.has("p_lower"):
            by_sigma.setdefault(model.parameters.sigma_cert, []).append(model)
    groups = []
    for sigma, group in sorted(by_sigma.items()):
        bounds = np.concatenate([model.column("p_lower") for model in group])
        shares = 100.0 * np.histogram(bounds, bins=_NUM_BINS, range=(0.0, 1.0))[0] / bounds.size
        groups.append({"sigma": sigma, "shares": [round(float(share), 3) for share in shares]})
    return groups


def _warning(comparison: Comparison) -> str:
    grid = comparison.grid
    if not grid.missing:
        return "<p>The grid is complete.</p>"
    items = "".join(f"<li>{html.escape(entry)}</li>" for entry in grid.missing)
    return f'<div class="warning"><b>{html.escape(partial_note(comparison))}</b><ul>{items}</ul></div>'


def _statistics(frame: pd.DataFrame) -> str:
    names = [name for name in frame.columns if name not in ("num_images", "num_models", "baseline_num_models")]
    rows = [
        [_statistic(name, value) for name, value in zip(names, row, strict=True)]
        for row in frame[names].itertuples(index=False, name=None)
    ]
    return _table([name.replace("_", " ") for name in names], rows, num_text=0)


def _statistic(name: str, value: Any) -> str:
    """A cell of the table of statistics; bounds are rounded to their safe side."""
    rounding = _ROUNDINGS.get(name.removeprefix("baseline_"))
    if name == "radius":
        return format_radius(value)
    if rounding is None or math.isnan(value):
        return _cell(value)
    return str(Decimal(repr(float(value))).quantize(Decimal("1e-4"), rounding=rounding))


def _runs(models: Sequence[CertifiedModel]) -> str:
    names = (
        "method",
        "attack",
        "sigma_train",
        "sigma_cert",
        "epsilon",
        "m_train",
        "num_steps",
        "n",
        "alpha",
        "variant",
    )
    headers = ["model", *names, "images", "accuracy at 0", "average radius", "abstention rate", "seconds"]
    rows = []
    for model in models:
        known = [_cell(getattr(model.parameters, name)) for name in names]
        results = [
            *(_cell(len(model.rows)), _cell(float(model.curve(0.0)))),
            *(format_radius(average_radius(model), 4), _cell(abstention(model)), _cell(_cost_s(model))),
        ]
        rows.append([model.label, *known, *results])
    return _table(headers, rows, num_text=1)


def _cost_s(model: CertifiedModel) -> float | None:
    return float(model.column("elapsed_s").sum(dtype=np.float64)) if model.has("elapsed_s") else None


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, num_text: int) -> str:
    """An HTML table; the first ``num_text`` columns are left-aligned."""

    def line(tag: str, cells: Sequence[str]) -> str:
        marks = [' class="text"' if number < num_text else "" for number in range(len(cells))]
        return "".join(f"<{tag}{mark}>{html.escape(cell)}</{tag}>" for mark, cell in zip(marks, cells, strict=True))

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{line('th', headers)}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _short(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
