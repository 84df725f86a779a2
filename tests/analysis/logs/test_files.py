from __future__ import annotations

import pytest

from analysis.logs.files import over_reach, read_log, seconds
from jobs.errors import RecordError
from smoothing.radius import max_radius

HEAD = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
GOOD = HEAD + "0\t3\t3\t0.25\t1\t0:00:25.5\n20\t7\t-1\t0.0\t0\t15.4\n"


def test_a_log_is_read_as_it_stands() -> None:
    log = read_log(GOOD, "certification")
    assert log.columns == {
        "index": [0, 20],
        "label": [3, 7],
        "prediction": [3, -1],
        "radius": [0.25, 0.0],
        "correct": [True, False],
        "elapsed_s": [25.5, 15.4],
    }
    assert log.radius_texts == ["0.25", "0.0"]


def test_a_last_line_may_lack_its_end_and_lines_may_end_in_any_way() -> None:
    assert read_log(GOOD.rstrip("\n"), "certification").columns["index"] == [0, 20]


def test_predictions() -> None:
    log = read_log("idx\tlabel\tpredict\tbasePredict\tcorrect\ttime\n0\t3\t2\t1\t0\t0:00:02\n", "prediction")
    assert log.columns["base_prediction"] == [1]
    assert log.radius_texts == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "malformed: the first line is not the header"),
        (HEAD, "empty: a header and no rows"),
        (HEAD.replace("radius", "r") + "0\t3\t3\t0.25\t1\t1\n", "malformed: the first line"),
        (HEAD + "0\t3\t3\t0.25\t1\n", "malformed: line 2 has 5 fields instead of 6"),
        (GOOD + "40\t1\t1\n", "malformed: line 4 has 3 fields"),
        (GOOD + "40\t1\tone\t0.1\t1\t1\n", "malformed: line 4, predict: 'one'"),
        (GOOD + "40\t1\t1\t\t1\t1\n", "malformed: line 4, radius: ''"),
        (GOOD + "40\t1\t1\tnan\t1\t1\n", "malformed: image 40 has radius nan"),
        (GOOD + "40\t1\t1\t-0.1\t1\t1\n", r"malformed: image 40 has radius -0\.1"),
        (GOOD + "40\t1\t1\t0.1\t2\t1\n", "malformed: line 4, correct: '2'"),
        (GOOD + "40\t1\t1\t0.1\t1\tsoon\n", "malformed: line 4, time: 'soon'"),
        (GOOD + "20\t7\t7\t0.1\t1\t1\n", "contradictory: image 20 after image 20"),
        (GOOD + "10\t7\t7\t0.1\t1\t1\n", "contradictory: image 10 after image 20"),
        (GOOD + "40\t7\t7\t0.1\t0\t1\n", "contradictory: image 40 has label 7, prediction 7, correct=False"),
        (GOOD + "40\t1_0\t10\t0.1\t1\t1\n", "malformed: line 4, label: '1_0'"),
        (GOOD + "40\t1\t1\t1_0.5\t1\t1\n", "malformed: line 4, radius: '1_0.5'"),
        (GOOD + "40\t1\t 1\t0.5\t1\t1\n", "malformed: line 4, predict: ' 1'"),
        (GOOD + "2147483648\t1\t1\t0.5\t1\t1\n", "malformed: line 4, idx: '2147483648'"),
        (GOOD + f"40\t1\t1\t0.5\t1\t{400 * '9'}\n", "malformed: line 4, time: '999"),
        (GOOD + f"40\t1\t1\t0.5\t1\t{400 * '9'} days, 0:00:01\n", "malformed: line 4, time: '999"),
        (GOOD + "40\t-1\t-1\t0\t1\t1\n", "malformed: image 40 has label -1"),
        (GOOD + "40\t1\t-2\t0\t0\t1\n", "malformed: image 40 has prediction -2"),
        (GOOD + "40\t7\t-1\t0.1\t0\t1\n", r"contradictory: image 40 abstains with a radius of 0\.1"),
    ],
)
def test_what_is_wrong_is_named(text: str, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        read_log(text, "certification")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("15.4", 15.4), ("0:00:25.419551", 25.419551), ("1:02:03", 3723.0), ("2 days, 0:00:01", 172801.0)],
)
def test_times(text: str, expected: float) -> None:
    assert seconds(text) == expected


def test_radii_within_reach_are_fine() -> None:
    assert over_reach(["0.0", "0.95", "0.9528"], 0.25) is None


def test_rounding_to_nearest_may_overshoot() -> None:
    reason = over_reach(["0.9529", "0.9529", "0.5"], 0.25)
    assert reason is not None
    assert reason.startswith("rounded up in print: 2 radii up to 0.9529")


def test_a_larger_alpha_cannot_be_mistaken_for_rounding() -> None:
    radius = max_radius(100_000, 0.01, 0.25)
    reason = over_reach([f"{radius:.3f}", "0.9529"], 0.25)
    assert reason is not None
    assert reason.startswith("other alpha or n: 2 radii up to 0.978")
    assert 0.0095 < float(reason.rpartition(">= ")[2]) <= 0.01
