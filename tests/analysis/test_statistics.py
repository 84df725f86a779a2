import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from analysis.alpha import at_alpha
from analysis.compare import compare
from analysis.statistics import Levels, csv_text, envelope_frame, model_frame
from analysis.tables import envelope_table, statistics_notes, statistics_table
from jobs.errors import RecordError
from smoothing.bounds import clopper_pearson_upper
from smoothing.certificate import certificate_from_counts
from smoothing.distributions import ExactGridNoise
from smoothing.radius import certified_radius, max_radius
from smoothing.sequential import DecisionRules, Look, Procedure
from smoothing.simultaneous import max_false_certificates, simultaneous_half_width
from tests.analysis.models import ALPHA, N, grid, model, voted

LEVELS = Levels(confidence=0.95, rho=0.01)
VOTES = [1000, 990, 900, 560, 545, 300]
GRID = grid(voted("gaussian", [800] * 6), voted("one", VOTES, [True, True, True, True, True, False]))


def test_the_monte_carlo_bracket_is_the_share_of_upper_bounds() -> None:
    radii = [0.0, 0.1, 0.4, 0.6]
    frame = envelope_frame(compare(GRID), radii, LEVELS)
    upper = clopper_pearson_upper(VOTES, N, ALPHA)
    for radius, cell in zip(radii, frame["monte_carlo_upper"], strict=True):
        needed = 0.5 * (1 + math.erf(radius / 0.25 / math.sqrt(2)))
        assert cell == pytest.approx(np.mean(upper >= needed))
    assert (frame["monte_carlo_upper"] >= frame["accuracy"]).all()


def test_a_wrong_class_is_not_in_the_bracket_and_an_abstention_may_be() -> None:
    wrong = grid(voted("one", [900, 900, 510], [True, False, True]))
    frame = envelope_frame(compare(wrong), [0.0], LEVELS)
    assert frame["accuracy"][0] == pytest.approx(1 / 3)
    assert frame["monte_carlo_upper"][0] == pytest.approx(2 / 3)


def test_what_selection_stopped_is_not_in_the_bracket() -> None:
    full = voted("one", [900, 0, 900], [True, False, True])
    changed = {"stop": ["full", "wrong_class", "full"], "n_used": pa.array([N, 0, N], pa.int32())}
    rows = full.rows
    for name, values in changed.items():
        rows = rows.set_column(rows.column_names.index(name), name, [values])
    frame = envelope_frame(compare(grid(replace(full, rows=rows))), [0.0, 0.1, 0.25], LEVELS)
    assert frame["monte_carlo_upper"].tolist() == [pytest.approx(2 / 3)] * 3


def test_high_probability_accuracy_gives_away_false_certificates() -> None:
    single = grid(voted("one", [1000] * 300))
    frame = envelope_frame(compare(single), [0.1], LEVELS)
    lost = max_false_certificates(300, ALPHA, 0.01)
    assert frame["high_probability"][0] == pytest.approx((300 - lost) / 300)
    two = grid(voted("one", [1000] * 300), voted("two", [1000] * 300))
    frame = envelope_frame(compare(two), [0.1], LEVELS)
    assert frame["high_probability"][0] == pytest.approx((300 - max_false_certificates(300, ALPHA, 0.005)) / 300)


def test_the_error_of_high_probability_accuracy_is_shared_by_the_models() -> None:
    """300 images at rho = 0.01: two false certificates for one model, three for five, of which each has a fifth."""
    assert (max_false_certificates(300, ALPHA, 0.01), max_false_certificates(300, ALPHA, 0.01 / 5)) == (2, 3)
    five = grid(*(voted(f"m{number}", [1000] * 300) for number in range(5)))
    frame = envelope_frame(compare(five), [0.1], LEVELS)
    assert frame["high_probability"][0] == pytest.approx(297 / 300)


def test_the_band_is_for_all_models_searched() -> None:
    models = [voted(f"m{number}", [900] * 50) for number in range(5)]
    frame = envelope_frame(compare(grid(*models)), [0.0], LEVELS)
    half_width = simultaneous_half_width(50, 5, 0.05)
    assert frame["num_models"][0] == 5
    assert frame["band_lower"][0] == pytest.approx(1 - half_width)
    assert frame["band_upper"][0] == 1.0


def test_cells_beyond_what_n_can_tell_are_marked() -> None:
    limit = 3 / 3.8115 * max_radius(N, ALPHA, 0.25)
    frame = envelope_frame(compare(GRID), [0.0, 0.99 * limit, 1.01 * limit, 2.0], LEVELS)
    assert frame["n_limited"].tolist() == [False, False, True, True]


def test_the_abstention_rate_is_that_of_the_model_in_the_row() -> None:
    frame = envelope_frame(compare(grid(voted("one", [1000, 900, 510, 505]))), [0.0, 5.0], LEVELS)
    assert frame["abstention_rate"][0] == 0.5
    assert math.isnan(frame["abstention_rate"][1])  # nobody is there


@pytest.mark.parametrize("stop", ["wrong_class", "abstain", "decided", None])
def test_the_abstention_rate_is_not_known_where_sampling_stopped_early(stop: str | None) -> None:
    full = voted("one", [1000, 900, 510])
    stops = pa.array(["full", stop, "full"], pa.string())
    early = replace(full, rows=full.rows.set_column(full.rows.column_names.index("stop"), "stop", stops))
    assert full.abstention_rate == pytest.approx(1 / 3)
    assert math.isnan(early.abstention_rate)
    comparison = compare(grid(early))
    frame = envelope_frame(comparison, [0.0], LEVELS)
    *_, row = statistics_table(comparison, frame, "pipe").splitlines()
    assert row.rstrip("| ").endswith("-")
    assert "a dash (-) if sampling stopped early" in statistics_notes(comparison, LEVELS)[-1]


def test_average_radius_counts_wrong_and_abstaining_images_as_zero() -> None:
    assert model("one", [0.5, -0.4, 0.1, 0.0]).average_radius == pytest.approx(0.15)


def test_no_radius_is_rounded_up_in_text() -> None:
    comparison = compare(grid(model("one", [0.12346, 0.30007, 0.12346, 0.12346])))
    frame = envelope_frame(comparison, [0.12345, 0.30006], LEVELS)
    assert frame["average_radius"][0] == pytest.approx(0.1676125)
    for rows in (envelope_table(comparison, frame, "pipe"), statistics_table(comparison, frame, "pipe")):
        assert [line.split()[1] for line in rows.splitlines()[2:]] == ["0.12345", "0.30006"]
    assert " 0.167 " in statistics_table(comparison, frame, "pipe")
    assert " 0.168 " not in statistics_table(comparison, frame, "pipe")


def test_what_the_records_do_not_hold_is_nan() -> None:
    silent = grid(model("one", [0.1, 0.2], n=None, alpha=None))
    frame = envelope_frame(compare(silent), [0.1], LEVELS)
    assert math.isnan(frame["monte_carlo_upper"][0])
    assert math.isnan(frame["high_probability"][0])
    assert frame["accuracy"][0] == 1.0


@pytest.mark.parametrize("alpha", [1e-6, 0.001, 0.05])
def test_another_alpha_is_what_certifying_with_it_would_have_given(alpha: float) -> None:
    rechosen = at_alpha(GRID.models[1], alpha)
    for image, votes in enumerate(VOTES):
        counts = np.array([votes, N - votes] if image < 5 else [N - votes, votes])
        counts0 = np.array([100, 0] if image < 5 else [0, 100])
        expected = certificate_from_counts(counts0, counts, sigma=0.25, alpha=alpha)
        assert rechosen.column("prediction")[image] == expected.prediction
        assert rechosen.column("radius")[image] == expected.radius
        assert rechosen.column("correct")[image] == (expected.prediction == 0)
    assert rechosen.parameters.alpha == alpha


@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_exact_noise_takes_its_total_variation_off_the_bound_at_another_alpha_too(alpha: float) -> None:
    counts, n = [100_000, 99_000, 51_000], 100_000
    known: dict[str, Any] = {"dataset": "imagenet", "sigma_cert": 1.0, "n": n}
    exact = at_alpha(voted("one", counts, noise="exact_grid", **known), alpha)
    plain = at_alpha(voted("one", counts, noise="gaussian", **known), alpha)
    distance = ExactGridNoise(1.0, 255).total_variation(3 * 224 * 224)
    expected = DecisionRules(Procedure(n0=100, n=n, alpha=alpha), sigma=1.0, total_variation=distance)
    assert exact.column("p_lower").tolist() == [expected.lower_bound(count, Look(n, alpha)) for count in counts]
    assert (exact.column("radius") < plain.column("radius")).all()
    assert exact.column("radius").tolist() == certified_radius(exact.column("p_lower"), 1.0).tolist()


def test_a_larger_alpha_certifies_an_image_that_abstained() -> None:
    votes = [545]  # enough at 0.05, too few at 0.001
    assert voted("one", votes).column("prediction")[0] == -1
    assert at_alpha(voted("one", votes), 0.05).column("prediction")[0] == 0


def test_alpha_cannot_be_chosen_anew_without_votes() -> None:
    with pytest.raises(RecordError, match="the records of one contain no votes"):
        at_alpha(model("one", [0.1]), 0.01)


def test_nor_where_sampling_was_stopped_on_a_bound() -> None:
    stopped = voted("one", [900, 800])
    rows = stopped.rows
    position = rows.column_names.index("stop")
    early = grid(
        type(stopped)(
            label="one", parameters=stopped.parameters, rows=rows.set_column(position, "stop", [["full", "decided"]])
        )
    )
    with pytest.raises(RecordError, match=r"a bound at alpha=.* stopped the sampling .*\(decided\)"):
        at_alpha(early.models[0], 0.01)
    assert math.isnan(envelope_frame(compare(early), [0.0], LEVELS)["monte_carlo_upper"][0])


def test_nor_to_one_that_n_cannot_reach() -> None:
    with pytest.raises(RecordError, match="can never certify anything at this alpha, which needs n >="):
        at_alpha(voted("one", [9, 10], n=10, alpha=0.01), 1e-5)


def test_no_alpha_is_chosen_below_what_bounds_allow() -> None:
    with pytest.raises(RecordError, match="no bound is sound below 1e-30"):
        at_alpha(GRID.models[1], 1e-31)


def test_a_table_is_the_csv_that_pandas_writes() -> None:
    frame = {
        "model": np.array(['one, "two"', "", "three"], dtype=object),
        "count": np.array([1, 20, 300]),
        "share": np.array([1 / 3, math.nan, 1e-17]),
        "is_bound": np.array([True, False, True]),
        "mode": np.array([None, None, None], dtype=object),
    }
    assert csv_text(frame) == pd.DataFrame(frame).to_csv(index=False)


def test_what_some_models_do_not_tell_is_nan_among_numbers() -> None:
    models = [model("one", [0.1], m_train=2, method=None), model("two", [0.2], m_train=None)]
    frame = model_frame(models)
    assert frame["m_train"][0] == 2.0
    assert math.isnan(frame["m_train"][1])
    assert frame["method"].tolist() == [None, "smoothadv"]
    assert frame["num_images"].tolist() == [1, 1]
    assert csv_text({name: frame[name] for name in ("model", "method", "m_train")}) == (
        "model,method,m_train\none,,2.0\ntwo,smoothadv,\n"
    )
