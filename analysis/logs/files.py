"""Reads text logs as columns: one line per image below a header; refuses logs that contradict themselves.

A file is a log because it has the header, whatever its name. What certifiers write differently (separators,
columns, repeated lines after a restart, compression) is read, and each difference is noted.
"""

import codecs
import csv
import functools
import gzip
import math
import operator
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from jobs.errors import RecordError
from smoothing.radius import ABSTAIN, max_radius

LogKind = Literal["certification", "prediction"]
Columns = dict[str, npt.NDArray[Any]]

HEADERS: dict[LogKind, list[str]] = {
    "certification": ["idx", "label", "predict", "radius", "correct", "time"],
    "prediction": ["idx", "label", "predict", "basePredict", "correct", "time"],
}
_EVERY_LOG = {"idx", "label", "predict"}  # a line with these words is a log's header
_OPTIONAL = "time"

MAX_INT32 = 2**31 - 1
"""The largest integer that a column of the records holds."""

PUBLISHED_N, PUBLISHED_ALPHA = 100_000, 0.001
"""The settings that Cohen et al. 2019 and Salman et al. 2019 state; logs do not contain them."""

_HEAD_BYTES = 4096  # searched for the header; the rest of a file without one is not read
_HEAD_LINES = 20


@dataclass(kw_only=True)
class Log:
    """The lines of one log."""

    kind: LogKind  # which of the two formats
    # Record columns by name, all of one shape (N,), N >= 1, indices ascending. Without ``elapsed_s`` where the
    # log has no times.
    columns: Columns
    largest_radius: str  # the largest radius as printed, for certification logs; empty for predictions
    # Values of its columns that hold for the whole log: sigma_cert, if a column sigma has one value
    fields: dict[str, Any] = field(default_factory=dict)
    # Messages on differences from the published format, none of which changes the values
    notes: list[str] = field(default_factory=list)
    is_cut: bool = False  # whether its last line was incomplete and left out


def read_file(path: Path) -> tuple[str, list[str]] | None:
    """The text of a file, and notes on how it is stored; None if its first lines contain no header.

    Raises:
        RecordError: It has a header, but its text cannot be decoded or decompressed.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if is_gzip else path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            if _header_line(_decoded(head, errors="replace")[0].splitlines()) is None:
                return None
            text, mark = _decoded(head + file.read())
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RecordError(f"malformed: cannot be decompressed ({error})") from error
    except UnicodeDecodeError as error:
        raise RecordError(f"malformed: {error}") from error
    return text, [note for note, is_so in (("compressed with gzip", is_gzip), (mark, bool(mark))) if is_so]


def read_log(text: str) -> Log:
    """The content of a log. Raises RecordError if it is malformed (with the line) or contradicts itself."""
    lines = text.replace("\r\n", "\n").split("\n")
    start = _header_line(lines)
    if start is None:
        raise RecordError(f"malformed: no header {' '.join(HEADERS['certification'])} in the first lines")
    split = _splitter(lines[start])
    header = [name.strip().lower() for name in split(lines[start])]
    kind: LogKind = "prediction" if "basepredict" in header else "certification"
    notes = [f"{start} lines before the header"] if start else []
    notes += _header_notes(lines[start], header, kind)
    head = lines[start].strip().lower()
    filled = [number for number in range(start + 1, len(lines)) if lines[number].strip()]
    numbers = filled
    if text.lower().count(head) > 1:
        numbers = [number for number in filled if lines[number].strip().lower() != head]
    if repeats := len(filled) - len(numbers):
        notes.append(f"{repeats} more {'header' if repeats == 1 else 'headers'}, as after a restart")
    if not numbers:
        raise RecordError("empty: a header and no rows")
    is_open_ended = lines[-1] != ""
    is_cut = is_open_ended and _is_incomplete(split(lines[numbers[-1]]), header, kind)
    if is_open_ended and not is_cut:
        notes.append("no newline at the end, so its last line may be cut off")
    rows = [split(lines[number]) for number in (numbers[:-1] if is_cut else numbers)]
    if not rows:
        raise RecordError("empty: a header and a line that is cut off")
    for number, row in zip(numbers, rows, strict=False):
        if len(row) != len(header):
            raise RecordError(f"malformed: line {number + 1} has {len(row)} fields instead of {len(header)}")
    texts = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
    columns = _converted(texts, kind, numbers)
    notes += [] if all(text.lstrip("-").isdigit() for text in set(texts["label"])) else ["integers written as 3.0"]
    radius = columns.get("radius", np.zeros(columns["index"].size))
    is_blank = (columns["prediction"] == ABSTAIN) & ((radius == -1) | np.isnan(radius))
    if is_blank.any():
        radius[is_blank] = 0.0
        notes.append("abstentions with a radius of -1 or nan, read as 0")
    _check(columns, radius)
    largest_radius = texts["radius"][int(np.argmax(radius))] if "radius" in texts else ""
    columns, more = _in_order(columns)
    return Log(
        kind=kind,
        columns=columns,
        largest_radius=largest_radius,
        fields=_told(texts),
        notes=notes + more,
        is_cut=is_cut,
    )


def join_ranks(logs: Sequence[Log]) -> Log:
    """Logs of several processes on one certification, as one. Raises RecordError if two contradict each other."""
    names = [name for name in logs[0].columns if all(name in log.columns for log in logs)]
    columns, notes = _in_order({name: np.concatenate([log.columns[name] for log in logs]) for name in names})
    return Log(
        kind=logs[0].kind,
        columns=columns,
        largest_radius=max((log.largest_radius for log in logs), key=lambda text: float(text or 0)),
        fields=logs[0].fields,
        notes=[*dict.fromkeys(note for log in logs for note in log.notes), *notes],
        is_cut=any(log.is_cut for log in logs),
    )


_TIME = re.compile(r"(?:(\d+) days?, )?(?:(\d+):(\d+):)?(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)")


def seconds(text: str) -> float:
    """Wall time as the logs print it: ``15.4``, ``9.5e-05``, ``0:00:25.419551`` or ``1 day, 0:00:01``."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"not a time: {text!r}")
    days, hours, minutes, rest = match.groups(default=0)
    total = 86400.0 * float(days) + 3600.0 * float(hours) + 60.0 * float(minutes) + float(rest)
    if not math.isfinite(total):
        raise ValueError(f"not a time: {text!r}")
    return total


def over_reach(log: Log, sigma: float, n: int = PUBLISHED_N, alpha: float = PUBLISHED_ALPHA) -> str | None:
    """What is wrong with the radii of a certification log if nobody can have certified them with n draws and alpha.

    None where all are within reach; else a sentence: only rounded up, or another alpha.
    """
    limit, largest = max_radius(n, alpha, sigma), log.largest_radius
    num_beyond = int(np.count_nonzero(log.columns["radius"] > limit))
    if not num_beyond:
        return None
    claim = f"{num_beyond} radii up to {largest}, but n={n} and alpha={alpha} reach only {limit:.6f}"
    unrounded = float(largest) - 0.5 * 10.0 ** int(Decimal(largest).as_tuple().exponent)
    if unrounded <= limit:
        return f"rounded up in print: {claim}"
    probability = 0.5 * math.erfc(-unrounded / sigma / math.sqrt(2))
    return f"other alpha or n: {claim}; this n needs alpha >= {probability**n:.2g}"


def _decoded(data: bytes, errors: str = "strict") -> tuple[str, str]:
    """Text, and a note on its byte order mark; UTF-16 is what PowerShell writes."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors), "in UTF-16"
    has_mark = data.startswith(codecs.BOM_UTF8)
    return data.decode("utf-8-sig", errors), "with a byte order mark" if has_mark else ""


def _header_line(lines: Sequence[str]) -> int | None:
    for number, line in enumerate(lines[:_HEAD_LINES]):
        if {word.strip('"').lower() for word in re.split(r"[\s,]+", line)} >= _EVERY_LOG:
            return number
    return None


def _splitter(header: str) -> Callable[[str], list[str]]:
    """How the lines below a header are split: at tabs, at commas, or, if there are neither, at blanks."""
    if "\t" in header:
        return operator.methodcaller("split", "\t")
    if "," in header:
        return lambda line: next(csv.reader([line], skipinitialspace=True), [""])
    num_blanks = len(header.split()) - 1
    return operator.methodcaller("split", maxsplit=num_blanks)  # the last may be "1 day, 2:03:04"


def _header_notes(line: str, header: Sequence[str], kind: LogKind) -> list[str]:
    wanted = [name.lower() for name in HEADERS[kind]]
    missing = [name for name in wanted if name not in header and name != _OPTIONAL]
    if missing or len(set(header)) < len(header):
        raise RecordError(f"malformed: the header {' '.join(line.split())!r} is not {' '.join(HEADERS[kind])}")
    extra = [name or "an unnamed one" for name in header if name not in wanted]
    separator = "" if "\t" in line else "separated by commas" if "," in line else "separated by blanks"
    return [
        *([separator] if separator else []),
        *([f"more columns: {', '.join(extra)}"] if extra else []),
        *(["no times"] if _OPTIONAL not in header else []),
    ]


def _is_incomplete(row: Sequence[str], header: Sequence[str], kind: LogKind) -> bool:
    """Whether a last line without a newline is incomplete, perhaps within a number that matters."""
    if len(row) < len(header) or header[-1] in ("idx", "label", "predict", "basepredict", "radius"):
        return True
    if len(row) > len(header):
        return False
    by_name = dict(zip(header, row, strict=True))
    return any(name in by_name and not _converts(convert, by_name[name]) for name, _, convert, _ in _CONVERSIONS[kind])


def _converted(texts: dict[str, list[str]], kind: LogKind, numbers: Sequence[int]) -> Columns:
    columns: Columns = {}
    for name, column, convert, dtype in _CONVERSIONS[kind]:
        if name not in texts:
            continue
        try:
            columns[column] = np.array(convert(texts[name]), dtype)
        except ValueError:
            row = next(row for row, text in enumerate(texts[name]) if not _converts(convert, text))
            raise RecordError(f"malformed: line {numbers[row] + 1}, {name}: {texts[name][row]!r}") from None
    return columns


def _told(texts: dict[str, list[str]]) -> dict[str, Any]:
    """The one value of a column, for the whole log."""
    if "sigma" not in texts:
        return {}
    found = set(texts["sigma"])
    if len(found) > 1:
        raise RecordError(f"contradictory: the column sigma holds {', '.join(sorted(found)[:3])}")
    text = found.pop()
    if not (_converts(_reals, text) and math.isfinite(float(text)) and float(text) > 0):
        raise RecordError(f"malformed: the column sigma holds {text!r}")
    return {"sigma_cert": float(text)}


def _converts(convert: Any, text: str) -> bool:
    try:
        convert([text])
    except ValueError:
        return False
    return True


@functools.lru_cache(maxsize=1 << 16)  # there are few, and millions of cells
def _integer(text: str) -> int:
    """A value as in the records; int() would also accept blanks, underscores and other scripts' digits."""
    if not re.fullmatch(r"-?[0-9]{1,10}(\.0*)?", text) or int(float(text)) > MAX_INT32:
        raise ValueError(text)
    return int(text.partition(".")[0])


def _integers(texts: Sequence[str]) -> list[int]:
    return list(map(_integer, texts))


def _reals(texts: Sequence[str]) -> list[float]:
    if not re.fullmatch(r"[-+.0-9A-Za-z\n]+", "\n".join(texts)):
        raise ValueError
    return list(map(float, texts))


def _booleans(texts: Sequence[str]) -> list[bool]:
    if not _BOOLEANS.keys() >= set(texts):
        raise ValueError
    return [_BOOLEANS[text] for text in texts]


_CLOCKS = re.compile(r"(?:[0-9]++:[0-9]++:[0-9]++(?:\.[0-9]*+)?\n)++")


def _times(texts: Sequence[str]) -> npt.ArrayLike:
    if not _CLOCKS.fullmatch("\n".join([*texts, ""])):
        return list(map(seconds, texts))
    parts = np.array(list(map(float, ":".join(texts).split(":")))).reshape(-1, 3)  # all together: there are millions
    return np.asarray(3600.0 * parts[:, 0] + 60.0 * parts[:, 1] + parts[:, 2])


_BOOLEANS = {"0": False, "1": True, "0.0": False, "1.0": True, "False": False, "True": True}

_SHARED = tuple(
    (name, column, _integers, np.int32)
    for name, column in zip(("idx", "label", "predict"), ("index", "label", "prediction"), strict=True)
)
_MORE = (("correct", "correct", _booleans, np.bool_), ("time", "elapsed_s", _times, np.float32))
_CONVERSIONS: dict[LogKind, tuple[tuple[str, str, Callable[[Sequence[str]], npt.ArrayLike], Any], ...]] = {
    "certification": (*_SHARED, ("radius", "radius", _reals, np.float64), *_MORE),
    "prediction": (*_SHARED, ("basepredict", "base_prediction", _integers, np.int32), *_MORE),
}
"""Name in the header, column of the records, what makes the one from the other's texts, and the column's type."""


def _check(columns: Columns, radius: npt.NDArray[np.float64]) -> None:
    """Raise RecordError for the first line that contradicts itself."""
    index, label, prediction, correct = (columns[name] for name in ("index", "label", "prediction", "correct"))
    wrong = {
        "malformed: image {index}; indices begin at 0": index < 0,
        "malformed: image {index} has label {label}; classes begin at 0": label < 0,
        f"malformed: image {{index}} has prediction {{prediction}}; {ABSTAIN} is to abstain": prediction < ABSTAIN,
        "contradictory: image {index} has label {label}, prediction {prediction}, correct={correct}": (
            correct != (prediction == label)
        ),
        "malformed: image {index} has radius {radius}": ~(np.isfinite(radius) & (radius >= 0)),
        "contradictory: image {index} abstains with a radius of {radius}": (prediction == ABSTAIN) & (radius > 0),
    }
    first = min((int(np.argmax(is_wrong)) for is_wrong in wrong.values() if is_wrong.any()), default=None)
    if first is not None:
        text = next(text for text, is_wrong in wrong.items() if is_wrong[first])
        raise RecordError(
            text.format(**{name: values[first] for name, values in {**columns, "radius": radius}.items()})
        )


def _in_order(columns: Columns) -> tuple[Columns, list[str]]:
    """Rows by ascending index, and notes on what changed. Raises RecordError if an image has two results."""
    index = columns["index"]
    order = np.argsort(index, kind="stable")
    notes = [] if (np.diff(order) == 1).all() else ["rows not in the order of the images"]
    is_repeat = np.diff(index[order], prepend=-1) == 0
    for again in np.flatnonzero(is_repeat):
        row, before = order[again], order[again - 1]
        if any(values[row] != values[before] for name, values in columns.items() if name != "elapsed_s"):
            raise RecordError(f"contradictory: image {index[row]} occurs twice, with different results")
    if is_repeat.any():
        notes.append(f"{np.count_nonzero(is_repeat)} rows repeated, as after a restart")
    return {name: values[order[~is_repeat]] for name, values in columns.items()}, notes
