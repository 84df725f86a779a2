import gzip
from pathlib import Path
from typing import Any

import pytest

from analysis.logs.files import Log, join_ranks, over_reach, read_file, read_log, seconds
from jobs.errors import RecordError
from smoothing.radius import max_radius

HEAD = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
SIGMA = HEAD[:-1] + "\tsigma\n"
RESTARTED = "1 more header, as after a restart; 1 rows repeated, as after a restart"


def _lists(log: Log) -> dict[str, list[Any]]:
    return {name: values.tolist() for name, values in log.columns.items()}


GOOD = HEAD + "0\t3\t3\t0.25\t1\t0:00:25.5\n20\t7\t-1\t0.0\t0\t15.4\n"


def test_a_log_is_read_as_it_stands() -> None:
    log = read_log(GOOD)
    assert {**_lists(log), "elapsed_s": log.columns["elapsed_s"].tolist()} == {
        "index": [0, 20],
        "label": [3, 7],
        "prediction": [3, -1],
        "radius": [0.25, 0.0],
        "correct": [True, False],
        "elapsed_s": [25.5, pytest.approx(15.4)],
    }
    assert log.largest_radius == "0.25"


def test_a_last_line_may_lack_its_end_and_lines_may_end_in_any_way() -> None:
    assert read_log(GOOD.rstrip("\n")).columns["index"].tolist() == [0, 20]


def test_predictions() -> None:
    log = read_log("idx\tlabel\tpredict\tbasePredict\tcorrect\ttime\n0\t3\t2\t1\t0\t0:00:02\n")
    assert log.columns["base_prediction"].tolist() == [1]
    assert log.largest_radius == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "malformed: no header"),
        (HEAD, "empty: a header and no rows"),
        (
            HEAD.replace("radius", "r") + "0\t3\t3\t0.25\t1\t1\n",
            "malformed: the header 'idx label predict r correct time' is not idx label predict radius",
        ),
        (HEAD + "0\t3\t3\t0.25\t1\n", "malformed: line 2 has 5 fields instead of 6"),
        (GOOD + "40\t1\t1\n", "malformed: line 4 has 3 fields"),
        (GOOD + "40\t1\tone\t0.1\t1\t1\n", "malformed: line 4, predict: 'one'"),
        (GOOD + "40\t1\t1\t\t1\t1\n", "malformed: line 4, radius: ''"),
        (GOOD + "40\t1\t1\tnan\t1\t1\n", "malformed: image 40 has radius nan"),
        (GOOD + "40\t1\t1\t-0.1\t1\t1\n", r"malformed: image 40 has radius -0\.1"),
        (GOOD + "40\t1\t1\t0.1\t2\t1\n", "malformed: line 4, correct: '2'"),
        (GOOD + "40\t1\t1\t0.1\t1\tsoon\n", "malformed: line 4, time: 'soon'"),
        (GOOD + "20\t7\t7\t0.1\t1\t1\n", "contradictory: image 20 occurs twice, with different results"),
        (GOOD + "-1\t7\t7\t0.1\t1\t1\n", "malformed: image -1; indices begin at 0"),
        (GOOD + "40\t7\t7\tinf\t1\t1\n", "malformed: image 40 has radius inf"),
        (GOOD + "40\t7\t7.5\t0.1\t1\t1\n", r"malformed: line 4, predict: '7\.5'"),
        (HEAD + "0\t3\t3\t0.2", "empty: a header and a line that is cut off"),
        (HEAD[:-1] + "\tidx\n0\t3\t3\t0.25\t1\t1\t0\n", "malformed: the header"),
        ("idx\tlabel\tpredict\tradius\ttime\n0\t3\t3\t0.25\t1\n", "malformed: the header"),
        (
            SIGMA + "0\t3\t3\t0.2\t1\t1\t0.25\n1\t3\t3\t0.2\t1\t1\t0.5\n",
            "contradictory: the column sigma holds 0.25, 0.5",
        ),
        (SIGMA + "0\t3\t3\t0.2\t1\t1\t-1\n", "malformed: the column sigma holds '-1'"),
        (GOOD + "40\t7\t7\t0.1\t0\t1\n", "contradictory: image 40 has label 7, prediction 7, correct=False"),
        (GOOD + "40\t1_0\t10\t0.1\t1\t1\n", "malformed: line 4, label: '1_0'"),
        (GOOD + "40\t1\t1\t1_0.5\t1\t1\n", "malformed: line 4, radius: '1_0.5'"),
        (GOOD + "40\t1\t 1\t0.5\t1\t1\n", "malformed: line 4, predict: ' 1'"),
        (GOOD + "2147483648\t1\t1\t0.5\t1\t1\n", "malformed: line 4, idx: '2147483648'"),
        (GOOD + "-9999999999\t1\t1\t0.5\t1\t1\n", "malformed: line 4, idx: '-9999999999'"),
        (GOOD + f"40\t1\t1\t0.5\t1\t{400 * '9'}\n", "malformed: line 4, time: '999"),
        (GOOD + f"40\t1\t1\t0.5\t1\t{400 * '9'} days, 0:00:01\n", "malformed: line 4, time: '999"),
        (GOOD + "40\t-1\t-1\t0\t1\t1\n", "malformed: image 40 has label -1"),
        (GOOD + "40\t1\t-2\t0\t0\t1\n", "malformed: image 40 has prediction -2"),
        (GOOD + "40\t7\t-1\t0.1\t0\t1\n", r"contradictory: image 40 abstains with a radius of 0\.1"),
    ],
)
def test_what_is_wrong_is_named(text: str, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        read_log(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("15.4", 15.4),
        ("9.5e-05", 9.5e-05),
        ("1 day, 2:03:04.5", 93784.5),
        ("0:00:25.419551", 25.419551),
        ("1:02:03", 3723.0),
        ("2 days, 0:00:01", 172801.0),
    ],
)
def test_times(text: str, expected: float) -> None:
    assert seconds(text) == expected


def _over_reach(*radii: str) -> str | None:
    lines = "".join(f"{index}\t3\t3\t{radius}\t1\t1\n" for index, radius in enumerate(radii))
    return over_reach(read_log(HEAD + lines), 0.25)


def test_radii_within_reach_are_fine() -> None:
    assert _over_reach("0.0", "0.95", "0.9528") is None


def test_rounding_to_nearest_may_overshoot() -> None:
    reason = _over_reach("0.9529", "0.9529", "0.5")
    assert reason is not None
    assert reason.startswith("rounded up in print: 2 radii up to 0.9529")


def test_a_larger_alpha_cannot_be_mistaken_for_rounding() -> None:
    radius = max_radius(100_000, 0.01, 0.25)
    reason = _over_reach(f"{radius:.3f}", "0.9529")
    assert reason is not None
    assert reason.startswith("other alpha or n: 2 radii up to 0.978")
    assert 0.0095 < float(reason.rpartition(">= ")[2]) <= 0.01


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (GOOD.replace("\n", "\r\n"), ""),
        (GOOD + "\n\n", ""),
        (GOOD.rstrip("\n"), "no newline at the end, so its last line may be cut off"),
        (GOOD.replace("\t", " "), "separated by blanks"),
        (GOOD.replace("\t", ","), "separated by commas"),
        (GOOD.replace("\t", ", "), "separated by commas"),
        ("started\n" + GOOD, "1 lines before the header"),
        (GOOD + GOOD.splitlines()[0] + "\n" + GOOD.splitlines()[2] + "\n", RESTARTED),
        (GOOD.replace("15.4", "99"), ""),
        (HEAD + "\n".join(GOOD.splitlines()[:0:-1]) + "\n", "rows not in the order of the images"),
        (GOOD.replace("\t0.0\t0", "\t-1\t0"), "abstentions with a radius of -1 or nan, read as 0"),
        (GOOD.replace("\t0.0\t0", "\tnan\t0"), "abstentions with a radius of -1 or nan, read as 0"),
        (
            HEAD + "0\t3.0\t3.0\t0.25\tTrue\t0:00:25.5\n20\t7.0\t-1.0\t0.0\tFalse\t15.4\n",
            "integers written as 3.0",
        ),
        (
            "radius\tidx\tlabel\tpredict\tcorrect\tnorm\ttime\n0.25\t0\t3\t3\t1\t9\t1\n0.0\t20\t7\t-1\t0\t8\t1\n",
            "more columns: norm",
        ),
        ("\n".join(line.rpartition("\t")[0] for line in GOOD.splitlines()) + "\n", "no times"),
    ],
)
def test_what_certifiers_write_differently_is_read_and_noted(text: str, note: str) -> None:
    log, plain = read_log(text), read_log(GOOD)
    for name in ("index", "label", "prediction", "radius", "correct"):
        assert log.columns[name].tolist() == plain.columns[name].tolist(), name
    assert ("elapsed_s" in log.columns) == (note != "no times")
    assert "; ".join(log.notes) == note
    assert not log.is_cut


@pytest.mark.parametrize("lost", [1, 3, 5, 7, 9, 12])
def test_a_last_line_that_is_cut_off_is_left_out(lost: int) -> None:
    """Wherever within the line; only its time may lack digits unseen."""
    log = read_log((GOOD + "40\t1\t1\t0.8125\t1\t0:0")[:-lost])
    assert log.is_cut
    assert log.columns["index"].tolist() == [0, 20]
    radius_last = "idx\tlabel\tpredict\tcorrect\tradius\n0\t3\t3\t1\t0.25\n20\t7\t7\t1\t7.75"
    assert read_log(radius_last).columns["radius"].tolist() == [0.25]  # of 7.75e-05


def test_a_column_sigma_says_the_noise_of_certification() -> None:
    assert read_log(SIGMA + "0\t3\t3\t0.2\t1\t1\t0.25\n").fields == {"sigma_cert": 0.25}


def test_a_log_is_what_has_the_header(tmp_path: Path) -> None:
    path = tmp_path / "anything"
    for data, notes in (
        (GOOD.encode(), []),
        (GOOD.encode("utf-8-sig"), ["with a byte order mark"]),
        (GOOD.encode("utf-16"), ["in UTF-16"]),
        (gzip.compress(GOOD.encode(), mtime=0), ["compressed with gzip"]),
    ):
        path.write_bytes(data)
        assert read_file(path) == (GOOD, notes)
    for other in (b"", b"hello\n", bytes(range(256)), b"PAR1" + bytes(9000) + GOOD.encode()):
        path.write_bytes(other)
        assert read_file(path) is None
    path.write_bytes(gzip.compress(GOOD.encode() * 4000)[:-200])
    with pytest.raises(RecordError, match="malformed: cannot be decompressed"):
        read_file(path)
    path.write_bytes(GOOD.encode() + b"\xff\n")
    with pytest.raises(RecordError, match="malformed: 'utf-8' codec"):
        read_file(path)


def test_parts_of_several_processes_are_one_log() -> None:
    first, second = (read_log(HEAD + line + "\n") for line in GOOD.splitlines()[:0:-1])
    joined = join_ranks([first, second])
    assert _lists(joined) == _lists(read_log(GOOD))
    assert joined.largest_radius == "0.25"
    with pytest.raises(RecordError, match="image 20 occurs twice, with different results"):
        join_ranks([first, read_log(HEAD + "20\t7\t7\t0.1\t1\t1\n")])
