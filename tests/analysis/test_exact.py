import math
from typing import Any

import numpy as np
import pytest

from analysis.candidates import are_exact, candidates_of, exact_radii, exact_step
from analysis.compare import compare, default_radii, envelope_curve
from analysis.paired import compare_models
from analysis.report.page import page_data
from analysis.statistics import Levels, envelope_frame
from analysis.tables import caption, envelope_table, statistics_table
from jobs.errors import RecordError
from tests.analysis.models import grid, model, parameters

LEVELS = Levels(confidence=0.95, rho=0.001)
STOPPED: dict[str, Any] = {"mode": "adaptive", "stop_rule": "grid", "radius_step": 0.25}
GRID = grid(model("gaussian", [0.1, 0.3, 0.3], **STOPPED), model("one", [0.26, 0.5, 0.6], **STOPPED))


@pytest.mark.parametrize(
    ("steps", "expected"), [([0.25], 0.25), ([0.25, 0.1], 0.5), ([0.5, 0.25, 0.25], 0.5), ([0.1, 0.15], 0.3)]
)
def test_the_step_of_several_is_their_least_common_multiple(steps: list[float], expected: float) -> None:
    known = [parameters("m", **{**STOPPED, "radius_step": step}) for step in steps]
    assert exact_step([*known, parameters("full")]) == pytest.approx(expected, abs=0)


def test_only_a_stop_for_a_grid_of_radii_limits_where_accuracy_is_exact() -> None:
    curve = parameters("m", mode="adaptive", stop_rule="curve", radius_step=0.01)
    assert exact_step([parameters("full"), curve]) is None
    assert are_exact([0.1, 0.3], None).all()
    assert are_exact([0.0, 0.1, 0.25, 0.3, 3 * 0.1], 0.1).tolist() == [True, True, False, True, True]
    assert exact_radii(0.3, 0.1).tolist() == [0.0, 0.1, 0.2, 0.3]


def test_tables_take_the_records_own_radii() -> None:
    assert default_radii(compare(GRID)) == [0.0, 0.25, 0.5]
    many = grid(model("one", [100.0], **STOPPED))
    radii = default_radii(compare(many))
    assert len(radii) <= 13
    assert are_exact(radii, 0.25).all()
    assert default_radii(compare(grid(model("one", [-0.1], **STOPPED)))) == [0.0]


def test_every_other_cell_is_marked_and_nothing_is_computed_from_it() -> None:
    comparison = compare(GRID)
    frame = envelope_frame(comparison, [0.25, 0.3], LEVELS)
    assert frame["is_lower_bound"].tolist() == [False, True]
    assert frame["gain"].tolist()[0] == pytest.approx(1 / 3)
    for name in ("gain", "lower", "upper", "band_lower", "band_upper", "single_accuracy", "baseline_lower"):
        assert np.isnan(frame[name]).tolist() == [False, True], name
    assert np.isnan(frame["average_radius"]).all()
    assert frame["accuracy"][1] == pytest.approx(2 / 3)
    *_, row = envelope_table(comparison, frame, "pipe").splitlines()
    assert [cell.strip() for cell in row.split("|")[1:-1]] == ["0.3", ">=66.6", "one", ">=66.6", "gaussian", ""]
    *_, row = statistics_table(comparison, frame, "pipe").splitlines()
    assert row.count(" - ") >= 4
    assert ">= marks a lower bound: sampling stopped once the multiples of 0.25 were settled" in caption(
        comparison, frame, LEVELS
    )


def test_a_grid_that_drew_all_samples_has_no_marks() -> None:
    comparison = compare(grid(model("one", [0.3])))
    frame = envelope_frame(comparison, [0.3], LEVELS)
    assert not frame["is_lower_bound"].any()
    assert "lower bound" not in caption(comparison, frame, LEVELS)


def test_the_average_radius_of_a_lower_bound_is_not_known() -> None:
    assert math.isnan(model("one", [0.3], **STOPPED).average_radius)
    assert model("one", [0.3]).average_radius == 0.3


def test_figures_and_page_have_points_at_the_own_radii() -> None:
    curve = envelope_curve(candidates_of(GRID.models, "all"), label="SmoothAdv", color_nr=0)
    assert curve.radii.tolist() == [0.0, 0.25, 0.5, 0.75]
    assert curve.accuracies.tolist() == pytest.approx([1.0, 1.0, 2 / 3, 0.0])
    assert not curve.is_step
    assert curve.is_certified
    assert "multiples of 0.25" in curve.label
    data = page_data(compare(GRID), LEVELS)
    assert (data["radii"], data["is_step"]) == ([0.0, 0.25, 0.5, 0.75], False)


def test_pairs_are_compared_at_common_multiples_only() -> None:
    full = model("full", [0.3, 0.3])
    stopped = model("stopped", [0.3, 0.1], **STOPPED)
    assert compare_models(full, stopped, 0.25).difference == 0.5
    with pytest.raises(RecordError, match=r"radius 0\.3 cannot be compared: .* multiples of 0\.25.* use radius=0\.25"):
        compare_models(full, stopped, 0.3)
    curve = model("curve", [0.3, 0.1], mode="adaptive", stop_rule="curve", radius_step=0.01)
    for other in (full, stopped):
        with pytest.raises(RecordError, match="were certified with different stop rules"):
            compare_models(other, curve, 0.25)
    with pytest.raises(RecordError, match="A and B are the same certified model, full"):
        compare_models(full, full, 0.25)


def test_multiples_are_told_in_spite_of_how_floats_are_written() -> None:
    assert are_exact(np.arange(1000) * 0.1, 0.1).all()
