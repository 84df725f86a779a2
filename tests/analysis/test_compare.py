from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.compare import compare, default_radii, envelope_frame
from analysis.load import CertifiedGrid, Model
from analysis.tables import caption, envelope_table
from smoothing.accuracy import AccuracyCurve
from smoothing.bounds import two_sided_interval
from tests.grids import tiny_manifest

RUNS = tiny_manifest().runs


def _grid(*radii: list[float], num_missing: int = 0) -> CertifiedGrid:
    """Models of the tiny grid (the first is the baseline) with given radii; a negative one is wrong."""
    models = []
    for run, label, model_radii in zip(RUNS, ("gaussian", "first", "second"), radii, strict=False):
        values = np.array(model_radii)
        models.append(Model(label=label, run=run, curve=AccuracyCurve.from_records(values >= 0, np.abs(values))))
    return CertifiedGrid(name="tiny", models=tuple(models), num_missing=num_missing)


GRID = _grid([0.1, 0.2, -0.3, 0.4], [0.5, 0.5, -1, -1], [0.3, 0.3, 0.3, 0.9])


def test_each_radius_names_its_best_model() -> None:
    frame = envelope_frame(compare(GRID), [0.0, 0.3, 0.4, 0.6, 1.0], 0.95)
    assert frame["num_certified"].tolist() == [4, 4, 2, 1, 0]
    assert frame["model"].tolist() == ["second", "second", "first", "second", ""]
    assert frame["baseline_num_certified"].tolist() == [3, 1, 1, 0, 0]
    assert frame["baseline_model"].tolist() == ["gaussian", "gaussian", "gaussian", "", ""]
    assert frame["gain"].tolist() == pytest.approx([0.25, 0.75, 0.25, 0.25, 0.0])


def test_intervals_are_exact() -> None:
    frame = envelope_frame(compare(GRID), [0.4], 0.75)
    lower, upper = two_sided_interval(2, 4, 0.25)
    assert (frame["lower"][0], frame["upper"][0]) == (float(lower), float(upper))


def test_a_grid_of_baselines_only_has_no_comparison() -> None:
    comparison = compare(_grid([0.1, 0.2]))
    assert comparison.baseline is None
    assert comparison.name == "Gaussian"
    assert "gain" not in envelope_frame(comparison, [0.0], 0.95)
    assert "Gaussian" in envelope_table(comparison, envelope_frame(comparison, [0.0], 0.95), "simple")


def test_the_table_rounds_intervals_outwards() -> None:
    frame = envelope_frame(compare(GRID), [0.4], 0.95)
    table = envelope_table(compare(GRID), frame, "pipe")
    lower, upper = two_sided_interval(2, 4, 0.05)
    shown_lower, shown_upper = (float(x) for x in table.split("50.0 [")[1].split("]")[0].split(","))
    assert shown_lower <= 100 * lower < shown_lower + 0.1
    assert shown_upper - 0.1 < 100 * upper <= shown_upper


@pytest.mark.parametrize(("largest", "step"), [(0.6, 0.0625), (1.2, 0.125), (2.5, 0.25), (4.0, 0.5)])
def test_the_table_has_about_ten_even_rows(largest: float, step: float) -> None:
    radii = default_radii(compare(_grid([0.0], [largest])))
    assert radii[0] == 0
    assert np.diff(radii) == pytest.approx(step)
    assert radii[-1] <= largest < radii[-1] + step


def test_a_grid_that_always_abstains_still_has_a_table() -> None:
    comparison = compare(_grid([-0.0001, -0.0001], [-0.0001, -0.0001]))
    frame = envelope_frame(comparison, default_radii(comparison), 0.95)
    assert frame["accuracy"].tolist() == [0.0]
    assert frame["model"].tolist() == [""]


def test_the_caption_says_how_many_models_were_searched() -> None:
    text = caption(compare(GRID), 0.95)
    assert "best of 2 models" in text
    assert "no single model attains the whole envelope" in text
    assert "PARTIAL" not in text
    assert caption(compare(replace(GRID, num_missing=7)), 0.95).startswith("PARTIAL: 7 of 10 models are missing.")
