"""Accuracy curves and their envelope against naive loops over dense sets of radii."""

from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothing.accuracy import AccuracyCurve, upper_envelope

quick = settings(deadline=None, derandomize=True, max_examples=200)
# Few values, so that radii tie within and between models; the others are neighbouring floats.
radii = st.sampled_from([0.0, 0.25, np.nextafter(0.25, 1), 0.5, 0.75, 1.0, 3.8]) | st.floats(0, 4)
Record = tuple[bool, float]
records = st.lists(st.tuples(st.booleans(), radii), min_size=1, max_size=12)


@st.composite
def models(draw: st.DrawFn) -> dict[str, list[Record]]:
    num_images, num_models = draw(st.integers(1, 8)), draw(st.integers(1, 5))
    one_model = st.lists(st.tuples(st.booleans(), radii), min_size=num_images, max_size=num_images)
    return {f"model {model_nr}": draw(one_model) for model_nr in range(num_models)}


def curve_of(rows: list[Record]) -> AccuracyCurve:
    return AccuracyCurve.from_records([correct for correct, _ in rows], [radius for _, radius in rows])


def naive_count(rows: list[Record], at: float) -> int:
    return sum(correct and radius >= at for correct, radius in rows)


def dense_radii(rows: list[Record]) -> list[float]:
    """Every radius, its two neighbours, the middles, and points outside."""
    points = {radius for _, radius in rows} | {-1.0, 0.0, 100.0}
    beside = {float(np.nextafter(point, to)) for point in points for to in (-np.inf, np.inf)}
    ordered = sorted(points)
    middles = {(low + high) / 2 for low, high in pairwise(ordered)}
    return sorted(points | beside | middles)


@quick
@given(rows=records)
def test_curve_equals_a_plain_loop(rows: list[Record]) -> None:
    curve, grid = curve_of(rows), dense_radii(rows)
    expected = np.array([naive_count(rows, at) for at in grid])
    assert np.array_equal(curve.num_certified(grid), expected)
    assert np.array_equal(curve(grid), expected / len(rows))


def test_a_radius_exactly_on_the_grid_counts() -> None:
    curve = AccuracyCurve.from_records([True, True], [0.25, 0.5])
    assert curve(0.25) == 1.0
    assert curve(np.nextafter(0.25, 1)) == 0.5
    assert curve(0.5) == 0.5
    assert curve(np.nextafter(0.5, 1)) == 0.0


def test_wrong_and_abstaining_images_count_in_the_denominator_only() -> None:
    curve = AccuracyCurve.from_records([True, False, False, True], [0.0, 2.0, 0.0, 1.0])
    assert np.array_equal(curve.radii, [0.0, 1.0])
    assert np.array_equal(curve([0.0, 0.5, 1.5]), [0.5, 0.25, 0.0])


def test_curve_keeps_the_shape_of_its_argument() -> None:
    curve = AccuracyCurve.from_records([True], [1.0])
    assert curve(np.zeros((2, 3))).shape == (2, 3)
    assert curve(0.0).shape == ()
    assert curve.num_certified(0.0).dtype == np.int64


@pytest.mark.parametrize(
    ("correct", "radius", "message"),
    [
        ([], [], "N >= 1"),
        ([True], [0.1, 0.2], "one radius for each"),
        ([[True]], [[0.1]], "one radius for each"),
        ([True], [-0.1], "finite and not negative"),
        ([False], [float("nan")], "finite and not negative"),
        ([True], [float("inf")], "finite and not negative"),
    ],
)
def test_curve_refuses_bad_records(correct: list[bool], radius: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AccuracyCurve.from_records(correct, radius)


@quick
@given(rows_by_model=models())
def test_envelope_is_the_maximum_at_every_radius(rows_by_model: dict[str, list[Record]]) -> None:
    envelope = upper_envelope({name: curve_of(rows) for name, rows in rows_by_model.items()})
    grid = dense_radii([*chain(*rows_by_model.values())])
    expected = np.array([max(naive_count(rows, at) for rows in rows_by_model.values()) for at in grid])
    assert np.array_equal(envelope.num_certified_at(grid), expected)
    assert np.array_equal(envelope(grid), expected / envelope.num_images)


@quick
@given(rows_by_model=models())
def test_winner_is_the_first_model_that_attains_the_maximum(rows_by_model: dict[str, list[Record]]) -> None:
    envelope = upper_envelope({name: curve_of(rows) for name, rows in rows_by_model.items()})
    for at in dense_radii([*chain(*rows_by_model.values())]):
        counts = {name: naive_count(rows, at) for name, rows in rows_by_model.items()}
        first_best = max(counts, key=lambda name: counts[name])
        assert envelope.winner_at(at) == (first_best if counts[first_best] > 0 else None)


@quick
@given(rows_by_model=models())
def test_every_breakpoint_changes_the_count_or_the_winner(rows_by_model: dict[str, list[Record]]) -> None:
    envelope = upper_envelope({name: curve_of(rows) for name, rows in rows_by_model.items()})
    steps = [*zip(envelope.num_certified.tolist(), envelope.winners.tolist(), strict=True), (0, -1)]
    assert all(left != right for left, right in pairwise(steps))
    assert np.all(np.diff(envelope.breakpoints) > 0)
    assert np.all(np.diff(envelope.num_certified) <= 0)


def test_ties_go_to_the_model_given_first() -> None:
    curve = AccuracyCurve.from_records([True, False], [1.0, 0.0])
    assert upper_envelope({"b": curve, "a": curve}).winner_at(1.0) == "b"
    assert upper_envelope({"a": curve, "b": curve}).winner_at(1.0) == "a"


def test_envelope_of_two_models_written_out() -> None:
    strong_near = AccuracyCurve.from_records([True, True, True], [0.2, 0.2, 0.3])
    strong_far = AccuracyCurve.from_records([True, False, False], [0.9, 0.0, 0.0])
    envelope = upper_envelope({"near": strong_near, "far": strong_far})
    assert envelope.models == ("near", "far")
    assert np.array_equal(envelope.breakpoints, [0.2, 0.3, 0.9])
    assert np.array_equal(envelope.num_certified, [3, 1, 1])
    assert np.array_equal(envelope.winners, [0, 0, 1])
    assert envelope.num_images == 3


def test_nobody_wins_above_the_last_breakpoint() -> None:
    envelope = upper_envelope({"only": AccuracyCurve.from_records([True], [1.0])})
    assert envelope.winner_at(1.0) == "only"
    assert envelope.winner_at(float(np.nextafter(1.0, 2))) is None
    assert envelope(1.5) == 0.0


def test_envelope_of_one_model_is_its_curve() -> None:
    curve = AccuracyCurve.from_records([True, True, False, True], [0.5, 0.1, 0.7, 0.5])
    envelope, grid = upper_envelope({"only": curve}), np.linspace(-0.1, 0.8, 91)
    assert np.array_equal(envelope(grid), curve(grid))


def test_envelope_where_everybody_abstains_is_zero() -> None:
    nothing = AccuracyCurve.from_records([False, False], [0.0, 0.0])
    envelope = upper_envelope({"a": nothing, "b": nothing})
    assert envelope.breakpoints.size == 0
    assert envelope(0.0) == 0.0
    assert envelope.winner_at(0.0) is None
    assert envelope.num_images == 2


def test_envelope_refuses_no_curves_and_different_test_sets() -> None:
    one, two = AccuracyCurve.from_records([True], [1.0]), AccuracyCurve.from_records([True] * 2, [1.0] * 2)
    with pytest.raises(ValueError, match="at least one curve"):
        upper_envelope({})
    with pytest.raises(ValueError, match=r"different numbers of images.*\[1, 2\]"):
        upper_envelope({"one": one, "two": two})
