from typing import Any

import numpy as np
import pytest

from analysis.compare import compare, default_radii, round_radii
from analysis.models import check_comparable
from analysis.statistics import Levels, envelope_frame
from analysis.tables import caption, envelope_table, statistics_table
from jobs.errors import RecordError
from smoothing.bounds import two_sided_interval
from tests.analysis.models import grid, model, parameters

LEVELS = Levels(confidence=0.95, rho=0.001)
GRID = grid(
    model("gaussian", [0.1, 0.2, -0.3, 0.4]),
    model("first", [0.5, 0.5, -1, -1]),
    model("second", [0.3, 0.3, 0.3, 0.9]),
)


def test_each_radius_names_its_best_model() -> None:
    frame = envelope_frame(compare(GRID), [0.0, 0.3, 0.4, 0.6, 1.0], LEVELS)
    assert frame["num_certified"].tolist() == [4, 4, 2, 1, 0]
    assert frame["model"].tolist() == ["second", "second", "first", "second", ""]
    assert frame["baseline_num_certified"].tolist() == [3, 1, 1, 0, 0]
    assert frame["baseline_model"].tolist() == ["gaussian", "gaussian", "gaussian", "", ""]
    assert frame["gain"].tolist() == pytest.approx([0.25, 0.75, 0.25, 0.25, 0.0])


def test_vanilla_adversarial_training_does_not_stand_in_for_smoothadv() -> None:
    comparison = compare(
        grid(
            model("gaussian", [0.1]), model("smooth", [0.2]), model("vanilla", [0.9], method="vanilla", sigma_train=0.0)
        )
    )
    assert list(comparison.candidates.by_label) == ["smooth"]
    assert comparison.candidates.name == "SmoothAdv"
    assert len(comparison.grid.models) == 3


def test_a_radius_on_a_table_radius_counts() -> None:
    frame = envelope_frame(compare(grid(model("one", [0.25, 0.5]))), [0.25, np.nextafter(0.25, 1), 0.5], LEVELS)
    assert frame["num_certified"].tolist() == [2, 1, 1]


def test_ties_go_to_the_earlier_model() -> None:
    tied = grid(model("a", [0.5, 0.1]), model("b", [0.1, 0.5]), model("c", [0.5, 0.5]))
    frame = envelope_frame(compare(tied), [0.0, 0.5], LEVELS)
    assert frame["model"].tolist() == ["a", "c"]


def test_the_best_single_model_is_the_best_on_average_over_the_radii() -> None:
    frame = envelope_frame(compare(GRID), [0.0, 0.3, 0.4, 0.6], LEVELS)
    assert set(frame["single_model"]) == {"second"}
    assert frame["single_accuracy"].tolist() == [1.0, 1.0, 0.25, 0.25]


def test_intervals_are_exact() -> None:
    frame = envelope_frame(compare(GRID), [0.4], Levels(confidence=0.75, rho=0.001))
    lower, upper = two_sided_interval(2, 4, 0.25)
    assert (frame["lower"][0], frame["upper"][0]) == (float(lower), float(upper))


def test_one_record_is_enough() -> None:
    frame = envelope_frame(compare(grid(model("one", [0.3]))), [0.0, 0.3, 0.31], LEVELS)
    assert frame["accuracy"].tolist() == [1.0, 1.0, 0.0]


def test_a_grid_of_baselines_only_has_no_comparison() -> None:
    comparison = compare(grid(model("gaussian", [0.1, 0.2])))
    assert comparison.baseline is None
    assert comparison.candidates.name == "Gaussian"
    frame = envelope_frame(comparison, [0.0], LEVELS)
    assert "gain" not in frame
    assert "Gaussian" in envelope_table(comparison, frame, "simple")


def test_the_table_rounds_intervals_outwards() -> None:
    frame = envelope_frame(compare(GRID), [0.4], LEVELS)
    table = envelope_table(compare(GRID), frame, "pipe")
    lower, upper = two_sided_interval(2, 4, 0.05)
    shown_lower, shown_upper = (float(x) for x in table.split("50.0 [")[1].split("]")[0].split(","))
    assert shown_lower <= 100 * lower < shown_lower + 0.1
    assert shown_upper - 0.1 < 100 * upper <= shown_upper


def test_the_papers_numbers_stand_beside_those_of_its_datasets() -> None:
    radii = [0.0, 0.5, 2.25, 2.5]
    ours = grid(model("gaussian", [0.6], dataset="cifar10"), model("one", [3.0], dataset="cifar10"))
    comparison = compare(ours)
    frame = envelope_frame(comparison, radii, LEVELS)
    np.testing.assert_array_equal(frame["printed"], [np.nan, 0.57, 0.17, np.nan])  # Table 2 begins at .25, ends at 2.25
    np.testing.assert_array_equal(frame["baseline_printed"], [np.nan, 0.43, 0.08, np.nan])
    assert "57 / 43" in envelope_table(comparison, frame, "simple")
    assert "Salman et al. 2019" in caption(comparison, frame, LEVELS)
    for unknown in (
        grid(model("gaussian", [0.6]), model("one", [3.0])),  # digits
        grid(model("one", [3.0], dataset="cifar10", method="vanilla")),
    ):
        frame = envelope_frame(compare(unknown), radii, LEVELS)
        assert np.isnan(frame["printed"]).all()
        assert "paper" not in envelope_table(compare(unknown), frame, "simple")


@pytest.mark.parametrize(("largest", "step"), [(0.6, 0.0625), (1.2, 0.125), (2.5, 0.25), (4.0, 0.5)])
def test_the_table_has_about_ten_even_rows(largest: float, step: float) -> None:
    radii = default_radii(compare(grid(model("gaussian", [0.0]), model("one", [largest]))))
    assert radii[0] == 0
    assert np.diff(radii) == pytest.approx(step)
    assert radii[-1] <= largest < radii[-1] + step


def test_a_grid_that_always_abstains_still_has_a_table() -> None:
    comparison = compare(grid(model("gaussian", [-0.0001] * 2), model("one", [-0.0001] * 2)))
    frame = envelope_frame(comparison, default_radii(comparison), LEVELS)
    assert frame["accuracy"].tolist() == [0.0]
    assert frame["model"].tolist() == [""]
    assert "-" in statistics_table(comparison, frame, "simple")


def test_split_chooses_on_some_images_and_reports_the_others() -> None:
    indices = [0, 20, 1, 2]
    lucky = model("lucky", [0.5, 0.5, -1, 0.1], indices)
    steady = model("steady", [0.5, -1, 0.5, 0.5], indices)
    frame = envelope_frame(compare(grid(lucky, steady), "split"), [0.5], LEVELS)
    assert (frame["model"][0], frame["num_images"][0], frame["accuracy"][0]) == ("lucky", 2, 0.0)
    assert envelope_frame(compare(grid(lucky, steady)), [0.5], LEVELS)["accuracy"][0] == 0.75


def test_split_needs_images_on_both_sides() -> None:
    with pytest.raises(RecordError, match=r"selection=split .* 2 of the 2 certified images have such an index"):
        compare(grid(model("one", [0.1, 0.2], [0, 20])), "split")


def test_choosing_on_the_reported_images_is_optimistic() -> None:
    """Models that are all equally good: the envelope flatters the best of them, split does not."""
    rng = np.random.default_rng(0)
    models = [model(f"m{number}", np.where(rng.random(2000) < 0.5, 1.0, -1.0).tolist()) for number in range(40)]
    levels = Levels(confidence=0.999, rho=0.001)
    same = envelope_frame(compare(grid(*models)), [1.0], levels)
    split = envelope_frame(compare(grid(*models), "split"), [1.0], levels)
    assert same["accuracy"][0] > 0.52
    assert split["lower"][0] <= 0.5 <= split["upper"][0]
    assert same["band_lower"][0] <= 0.5 <= same["band_upper"][0]


def test_the_caption_says_how_many_models_were_searched() -> None:
    comparison = compare(GRID)
    frame = envelope_frame(comparison, [0.4], LEVELS)
    text = caption(comparison, frame, LEVELS)
    assert "best of 2 certified models" in text
    assert "The envelope is not a single classifier" in text
    assert "PARTIAL" not in text
    partial = compare(grid(*GRID.models, missing=["x"] * 7))
    assert caption(partial, frame, LEVELS).startswith("PARTIAL: missing 7 of 10 certified models.")


@pytest.mark.parametrize("what", ["n", "alpha", "dataset"])
def test_models_that_cannot_be_compared_are_named(what: str) -> None:
    known: dict[str, Any] = {"n": 2000, "alpha": 0.01, "dataset": "cifar10"}
    changed = known[what]
    first, second = model("first", [0.1]), model("second", [0.1], None, **{what: changed})
    with pytest.raises(RecordError, match=f"{'images' if what == 'dataset' else what} cannot be compared") as raised:
        check_comparable([first.parameters, second.parameters], ["1 image"] * 2)
    assert first.parameters.train_key in str(raised.value)
    assert second.parameters.train_key in str(raised.value)
    assert str(changed) in str(raised.value)


def test_the_same_indices_of_other_images_are_never_compared() -> None:
    first, second, unknown = (
        parameters(name, images=images) for name, images in (("one", 64 * "a"), ("two", 64 * "b"), ("old", ""))
    )
    with pytest.raises(RecordError, match=f"different images cannot.*{12 * 'a'}.*{12 * 'b'}"):
        check_comparable([first, second], ["2 images"] * 2)
    check_comparable([first, unknown], ["2 images"] * 2)  # of results that do not say
    with pytest.raises(RecordError, match="different images cannot be compared"):
        check_comparable([first, unknown], ["2 images", "3 images"])


@pytest.mark.parametrize(
    ("largest", "radii"),
    [
        (0.0, [0.0]),
        (0.6, [0.0, 0.0625, 0.125, 0.1875, 0.25, 0.3125, 0.375, 0.4375, 0.5, 0.5625]),
        (3.8, [0.5 * number for number in range(8)]),
        (30.0, [3.0 * number for number in range(11)]),
    ],
)
def test_radii_are_round_numbers_and_few(largest: float, radii: list[float]) -> None:
    assert round_radii(largest) == radii
