"""The report's HTML: a template, the data as JSON, and Plotly's JavaScript, in one file."""

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
from plotly.offline import get_plotlyjs

from analysis.candidates import Candidate, candidates_of, exact_radii, largest_of
from analysis.compare import BASELINE_METHOD, METHOD_NAMES, Comparison, largest_radius
from analysis.models import CertifiedModel
from analysis.statistics import Frame, Levels, is_missing, model_frame, probability_frame, rows_of
from analysis.tables import caption, envelope_cells, partial_note, statistics_notes
from jobs.files.summary import NUM_BINS
from jobs.wording import counted
from smoothing.radius import format_radius

_FOLDER = Path(__file__).parent
_NUM_POINTS = 400  # of each curve: finer than a screen shows

_ROUNDINGS = {
    **dict.fromkeys(("lower", "band_lower", "high_probability", "average_radius"), ROUND_FLOOR),
    **dict.fromkeys(("upper", "band_upper", "monte_carlo_upper"), ROUND_CEILING),
}


def render(comparison: Comparison, frame: Frame, levels: Levels, provenance: Mapping[str, str]) -> str:
    """The page of a grid with its table of statistics; ``provenance`` are names and values to show."""
    grid, models = comparison.grid, model_frame(comparison.grid.models)
    num_images = int(models["num_images"].sum())
    num_trained = len({model.parameters.train_key for model in grid.models})
    same = ("num_images", "num_models", "baseline_num_models")  # in all rows
    total_s = float(np.nansum(models["elapsed_s"]))
    template = Template((_FOLDER / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=html.escape(f"Grid {grid.name}"),
        summary=html.escape(
            f"{counted(len(grid.models), 'certified model')} ({counted(num_trained, 'model')}), "
            f"{counted(num_images, 'certificate')}, {total_s / 3600:.2f} hours of certification"
        ),
        warning=_warning(comparison),
        caption=html.escape(" ".join([caption(comparison, frame, levels), *statistics_notes(comparison, levels)])),
        envelope=_table(*envelope_cells(comparison, frame), num_text=0),
        statistics=_frame({name: told for name, told in frame.items() if name not in same}, num_text=0),
        models=_frame({name: told for name, told in models.items() if not all(map(is_missing, told))}, num_text=1),
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
    if comparison.baseline is not None:
        largest = max(largest, largest_of(comparison.baseline.envelope.breakpoints))
    # Radii are rounded before images are counted, so that a count holds at the radius shown.
    radii = np.round(np.linspace(0.0, largest, _NUM_POINTS + 1), 6) if largest else np.zeros(1)
    if everyone.exact_step is not None:
        radii = exact_radii(largest + everyone.exact_step, everyone.exact_step)
    counts = np.stack([curve.num_certified(radii) for curve in everyone.curves.values()]).astype("<u4")
    # Methods of neither the candidates nor the baseline are apart.
    compared = {model.parameters.method for model in comparison.candidates.models} | {BASELINE_METHOD}
    names = ("method", "attack", "sigma_cert", "epsilon", "m_train", "num_steps")
    return {
        "name": comparison.candidates.name,
        "baseline": BASELINE_METHOD,
        "has_others": comparison.baseline is not None,
        "apart": sorted({model.parameters.method or "unknown" for model in models} - compared),
        "num_images": next(iter(everyone.curves.values())).num_images,  # times the seeds, so that means are counts too
        "num_test_images": everyone.num_images,
        "titles": [_readable(one) for one in everyone.by_label.values()],
        "seeds": [len(one.replicates) for one in everyone.by_label.values()],
        "is_step": everyone.exact_step is None,
        "error": round(1 - levels.confidence, 12),
        "radii": radii.tolist(),
        "models": [
            {"label": one.name, **{name: _short(getattr(one.parameters, name)) for name in names}}
            for one in everyone.by_label.values()
        ],
        "counts": base64.b64encode(counts.tobytes()).decode(),
        "bins": [round((number + 0.5) / NUM_BINS, 4) for number in range(NUM_BINS)],
        "bounds": _bounds(models),
    }


def _readable(one: Candidate) -> str:
    """A candidate's name for people, with its label: SmoothAdv, PGD, sigma = 0.25, epsilon = 0.5, ..."""
    known, parts = one.parameters, []
    numbers = {"\u03c3": known.sigma_train}
    if known.method is not None:
        parts.append(METHOD_NAMES.get(known.method, known.method))
    if known.attack is not None and known.attack != "none":
        parts.append(known.attack.upper())
        numbers |= {"ε": known.epsilon, "m": known.m_train, "T": known.num_steps}
    parts += [f"{letter} = {_cell(value)}" for letter, value in numbers.items() if value]
    return f"{', '.join(parts)} [{one.name}]" if parts else one.name


def _bounds(models: Sequence[CertifiedModel]) -> list[dict[str, Any]]:
    """For each sigma, the share of p_lower in each bin, in percent; empty if the records contain no bounds."""
    frame = probability_frame(models)
    percents = np.round(100.0 * frame["share"], 3)
    sigmas = np.unique(frame["sigma_cert"]).tolist()
    return [{"sigma": sigma, "shares": percents[frame["sigma_cert"] == sigma].tolist()} for sigma in sigmas]


def _warning(comparison: Comparison) -> str:
    grid = comparison.grid
    if not grid.missing:
        return "<p>The grid is complete.</p>"
    items = "".join(f"<li>{html.escape(entry)}</li>" for entry in grid.missing)
    return f'<div class="warning"><b>{html.escape(partial_note(comparison))}</b><ul>{items}</ul></div>'


def _frame(frame: Frame, *, num_text: int) -> str:
    rows = [[_statistic(name, value) for name, value in row.items()] for row in rows_of(frame)]
    headers = [_READABLE.get(name, name.replace("_", " ")) for name in frame]
    return _table(headers, rows, num_text=num_text)


def _statistic(name: str, value: Any) -> str:
    """A cell of the table of statistics; bounds are rounded to their safe side."""
    rounding = _ROUNDINGS.get(name.removeprefix("baseline_"))
    if name == "radius":
        return format_radius(value)
    if rounding is None or math.isnan(value):
        return _cell(value)
    return str(Decimal(repr(float(value))).quantize(Decimal("1e-4"), rounding=rounding))


_READABLE = {
    "sigma_train": "\u03c3 train",
    "sigma_cert": "\u03c3 cert",
    "epsilon": "ε",
    "m_train": "m",
    "num_steps": "T",
    "num_images": "images",
    "elapsed_s": "seconds",
}


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, num_text: int) -> str:
    """An HTML table; the first ``num_text`` columns are left-aligned."""

    def line(tag: str, cells: Sequence[str]) -> str:
        marks = [' class="text"' if number < num_text else "" for number in range(len(cells))]
        if tag == "td":  # shown before the cell where the page is too narrow for columns
            marks = [f'{mark} data-label="{html.escape(name)}"' for mark, name in zip(marks, headers, strict=True)]
        return "".join(f"<{tag}{mark}>{html.escape(cell)}</{tag}>" for mark, cell in zip(marks, cells, strict=True))

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{line('th', headers)}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if is_missing(value):
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _short(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
