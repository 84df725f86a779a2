"""Published logs as columns: tab-separated, one line per image, and refused where they contradict themselves."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jobs.errors import RecordError
from smoothing.radius import ABSTAIN, max_radius

HEADERS = {
    "certification": ["idx", "label", "predict", "radius", "correct", "time"],
    "prediction": ["idx", "label", "predict", "basePredict", "correct", "time"],
}

MAX_INT32 = 2**31 - 1
"""The largest integer that a column of the records holds."""

PUBLISHED_N, PUBLISHED_ALPHA = 100_000, 0.001
"""What Cohen et al. 2019 and Salman et al. 2019 say they certified with. No log says it."""


@dataclass(frozen=True, kw_only=True)
class Log:
    """The lines of one log.

    Attributes:
        columns: Record columns by name, all of one length >= 1, indices ascending.
        radius_texts: The radii as printed, for certification logs; empty for predictions.
    """

    columns: dict[str, list[Any]]
    radius_texts: list[str]


def read_log(text: str, kind: Literal["certification", "prediction"]) -> Log:
    """The content of a log.

    Args:
        text: The whole file.
        kind: Which of the two formats.

    Raises:
        RecordError: It is empty, malformed (names the line) or contradicts itself (names the image).
    """
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    if not lines or lines[0].split("\t") != HEADERS[kind]:
        raise RecordError(f"malformed: the first line is not the header {' '.join(HEADERS[kind])}")
    if len(lines) == 1:
        raise RecordError("empty: a header and no rows")
    cells = [line.split("\t") for line in lines[1:]]
    for line_nr, row in enumerate(cells, start=2):
        if len(row) != len(HEADERS[kind]):
            raise RecordError(f"malformed: line {line_nr} has {len(row)} fields instead of {len(HEADERS[kind])}")
    columns = _columns(cells, kind)
    _check(columns)
    return Log(columns=columns, radius_texts=[row[3] for row in cells] if kind == "certification" else [])


def seconds(text: str) -> float:
    """Wall time as the logs print it: ``15.4``, ``0:00:25.419551`` or ``1 day, 0:00:01``."""
    match = re.fullmatch(r"(?:(\d+) days?, )?(?:(\d+):(\d+):)?(\d+(?:\.\d+)?)", text)
    if match is None:
        raise ValueError(f"not a time: {text!r}")
    days, hours, minutes = (float(part or 0) for part in match.groups()[:3])
    total = 86400.0 * days + 3600.0 * hours + 60.0 * minutes + float(match[4])
    if not math.isfinite(total):
        raise ValueError(f"not a time: {text!r}")
    return total


def over_reach(radius_texts: Sequence[str], sigma: float) -> str | None:
    """What is wrong with radii that nobody can have certified with the published n and alpha.

    Args:
        radius_texts: As printed.
        sigma: Of the certification.

    Returns:
        None where all are within reach; else a sentence: only rounded up, or another alpha.
    """
    limit = max_radius(PUBLISHED_N, PUBLISHED_ALPHA, sigma)
    beyond = [text for text in radius_texts if float(text) > limit]
    if not beyond:
        return None
    largest = max(beyond, key=float)
    claim = f"{len(beyond)} radii up to {largest} where n={PUBLISHED_N} and alpha={PUBLISHED_ALPHA} reach {limit:.6f}"
    decimals = len(largest.partition(".")[2])
    unrounded = float(largest) - 0.5 * 10.0**-decimals
    if unrounded <= limit:
        return f"rounded up in print: {claim}"
    probability = 0.5 * math.erfc(-unrounded / sigma / math.sqrt(2))
    return f"other alpha or n: {claim}; at this n it takes alpha >= {probability**PUBLISHED_N:.2g}"


def _columns(cells: list[list[str]], kind: str) -> dict[str, list[Any]]:
    fourth = ("radius", _real) if kind == "certification" else ("base_prediction", _integer)
    wanted: tuple[tuple[str, Any], ...] = (
        *(("index", _integer), ("label", _integer), ("prediction", _integer), fourth),
        *(("correct", _boolean), ("elapsed_s", seconds)),
    )
    columns: dict[str, list[Any]] = {}
    for position, (name, convert) in enumerate(wanted):
        try:
            columns[name] = [convert(row[position]) for row in cells]
        except ValueError:
            line_nr = next(nr for nr, row in enumerate(cells, start=2) if not _converts(convert, row[position]))
            bad = cells[line_nr - 2][position]
            raise RecordError(f"malformed: line {line_nr}, {HEADERS[kind][position]}: {bad!r}") from None
    return columns


def _converts(convert: Any, text: str) -> bool:
    try:
        convert(text)
    except ValueError:
        return False
    return True


def _integer(text: str) -> int:
    """As records hold it; int() would also take blanks, underscores and other scripts' digits."""
    if not re.fullmatch(r"-?[0-9]{1,10}", text) or int(text) > MAX_INT32:
        raise ValueError(text)
    return int(text)


def _real(text: str) -> float:
    if not re.fullmatch(r"[-+.0-9A-Za-z]+", text):
        raise ValueError(text)
    return float(text)


def _boolean(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(text)
    return text == "1"


def _check(columns: dict[str, list[Any]]) -> None:
    """One image per line, in order, and each line of one mind."""
    before = -1
    radii = columns.get("radius", [0.0] * len(columns["index"]))
    for index, label, prediction, radius, correct in zip(
        *(columns[name] for name in ("index", "label", "prediction")), radii, columns["correct"], strict=True
    ):
        if index <= before:
            raise RecordError(f"contradictory: image {index} after image {before}; in twice, or out of order")
        before = index
        if label < 0:
            raise RecordError(f"malformed: image {index} has label {label}; classes begin at 0")
        if prediction < ABSTAIN:
            raise RecordError(f"malformed: image {index} has prediction {prediction}; {ABSTAIN} is to abstain")
        if correct != (prediction == label):
            raise RecordError(f"contradictory: image {index} has label {label}, prediction {prediction}, {correct=}")
        if not (math.isfinite(radius) and radius >= 0):
            raise RecordError(f"malformed: image {index} has radius {radius}")
        if prediction == ABSTAIN and radius > 0:
            raise RecordError(f"contradictory: image {index} abstains with a radius of {radius}")
