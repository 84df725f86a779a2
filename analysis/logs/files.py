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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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

MAX_INT32 = 2**31 - 1
"""The largest integer that a column of the records holds."""

PUBLISHED_N, PUBLISHED_ALPHA = 100_000, 0.001
"""The settings that Cohen et al. 2019 and Salman et al. 2019 state; logs do not contain them."""


@dataclass(kw_only=True)
class Log:
    """The lines of one log."""

    kind: LogKind
    columns: Columns  # of the records, all of one shape (N,), N >= 1, indices ascending; elapsed_s may be missing
    largest_radius: str  # as printed; empty for predictions
    fields: dict[str, Any]  # what holds for the whole log: sigma_cert, if a column sigma has one value
    notes: list[str]  # on differences from the published format, none of which changes the values
    is_cut: bool  # whether its last line was incomplete and left out


def read_file(path: Path) -> tuple[str, list[str]] | None:
    """The text of a file, and notes on how it is stored; None if its first lines contain no header.

    Raises OSError, or RecordError if it has a header, but its text cannot be decoded or decompressed.
    """
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if is_gzip else path.open("rb") as file:
            head = file.read(4096)  # without a header in these, the rest is not read
            if _header_line(_decoded(head, errors="replace")[0].splitlines()) is None:
                return None
            text, marks = _decoded(head + file.read())
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RecordError(f"malformed: cannot be decompressed ({error})") from error
    except UnicodeDecodeError as error:
        raise RecordError(f"malformed: {error}") from error
    return text, (["compressed with gzip"] if is_gzip else []) + marks


def read_log(text: str) -> Log:
    """The content of a log. Raises RecordError if it is malformed (with the line) or contradicts itself."""
    lines = text.replace("\r\n", "\n").split("\n")
    start = _header_line(lines)
    if start is None:
        raise RecordError(f"malformed: no header {' '.join(HEADERS['certification'])} in the first lines")
    line, split = lines[start], _splitter(lines[start])
    header = [name.strip().lower() for name in split(line)]
    kind: LogKind = "prediction" if "basepredict" in header else "certification"
    wanted = [name.lower() for name in HEADERS[kind]]
    if not set(header) >= {*wanted} - {"time"} or len(set(header)) < len(header):
        raise RecordError(f"malformed: the header {' '.join(line.split())!r} is not {' '.join(HEADERS[kind])}")
    extra = [name or "an unnamed one" for name in header if name not in wanted]
    head = line.strip().lower()
    filled = [(number, text) for number, text in enumerate(lines[start + 1 :], start + 2) if text.strip()]
    rows = {number: split(text) for number, text in filled if text.strip().lower() != head}
    repeats = len(filled) - len(rows)
    if not rows:
        raise RecordError("empty: a header and no rows")
    is_open_ended = lines[-1] != ""
    is_cut = is_open_ended and _is_incomplete(rows[max(rows)], header, kind)
    if is_cut:
        del rows[max(rows)]
    if not rows:
        raise RecordError("empty: a header and a line that is cut off")
    for number, row in rows.items():
        if len(row) != len(header):
            raise RecordError(f"malformed: line {number} has {len(row)} fields instead of {len(header)}")
    texts = dict(zip(header, zip(*rows.values(), strict=True), strict=True))
    columns = _converted(texts, kind, list(rows))
    radius = columns.get("radius", np.zeros(columns["index"].size))
    is_blank = (columns["prediction"] == ABSTAIN) & ((radius == -1) | np.isnan(radius))
    radius[is_blank] = 0.0
    _check(columns, radius)
    largest_radius = texts["radius"][int(np.argmax(radius))] if "radius" in texts else ""
    notes = {
        f"{start} lines before the header": start > 0,
        "separated by commas" if "," in line else "separated by blanks": "\t" not in line,
        f"more columns: {', '.join(extra)}": bool(extra),
        "no times": "time" not in header,
        f"{repeats} more {'header' if repeats == 1 else 'headers'}, as after a restart": repeats > 0,
        "no newline at the end, so its last line may be cut off": is_open_ended and not is_cut,
        "integers written as 3.0": not all(text.lstrip("-").isdigit() for text in set(texts["label"])),
        "abstentions with a radius of -1 or nan, read as 0": is_blank.any(),
    }
    columns, more = _in_order(columns)
    return Log(
        kind=kind,
        columns=columns,
        largest_radius=largest_radius,
        fields=_told(texts),
        notes=[note for note, is_so in notes.items() if is_so] + more,
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


def over_reach(log: Log, sigma: float, n: int = PUBLISHED_N, alpha: float = PUBLISHED_ALPHA) -> str | None:
    """What is wrong with radii that n draws cannot have certified at alpha: rounded up, or another alpha; else None."""
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


def _decoded(data: bytes, errors: str = "strict") -> tuple[str, list[str]]:
    """Text, and a note on its byte order mark if it has one; UTF-16 is what PowerShell writes."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors), ["in UTF-16"]
    has_mark = data.startswith(codecs.BOM_UTF8)
    return data.decode("utf-8-sig", errors), ["with a byte order mark"] if has_mark else []


def _header_line(lines: Sequence[str]) -> int | None:
    for number, line in enumerate(lines[:20]):
        if {"idx", "label", "predict"} <= {word.strip('"').lower() for word in re.split(r"[\s,]+", line)}:
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


def _is_incomplete(row: Sequence[str], header: Sequence[str], kind: LogKind) -> bool:
    """Whether a last line without a newline is incomplete, perhaps within a number that matters."""
    if len(row) < len(header) or header[-1] in ("idx", "label", "predict", "basepredict", "radius"):
        return True
    if len(row) > len(header):
        return False
    known = _CONVERSIONS[kind]
    return any(name in known and not _converts(known[name][1], text) for name, text in zip(header, row, strict=True))


def _converted(texts: Mapping[str, Sequence[str]], kind: LogKind, numbers: Sequence[int]) -> Columns:
    columns: Columns = {}
    for name, (column, convert) in _CONVERSIONS[kind].items():
        if name not in texts:
            continue
        try:
            columns[column] = convert(texts[name])
        except ValueError:
            row = next(row for row, text in enumerate(texts[name]) if not _converts(convert, text))
            raise RecordError(f"malformed: line {numbers[row]}, {name}: {texts[name][row]!r}") from None
    return columns


def _told(texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The one value of a column, for the whole log."""
    if "sigma" not in texts:
        return {}
    found = sorted(set(texts["sigma"]))
    if len(found) > 1:
        raise RecordError(f"contradictory: the column sigma holds {', '.join(found[:3])}")
    if not (_converts(_reals, found[0]) and 0 < float(found[0]) < math.inf):
        raise RecordError(f"malformed: the column sigma holds {found[0]!r}")
    return {"sigma_cert": float(found[0])}


def _converts(convert: "Conversion", text: str) -> bool:
    try:
        convert([text])
    except ValueError:
        return False
    return True


@functools.lru_cache(maxsize=1 << 16)  # there are few, and millions of cells
def _integer(text: str) -> int:
    """A value as in the records; int() would also accept blanks, underscores and other scripts' digits."""
    if not re.fullmatch(r"-?[0-9]{1,10}(\.0*)?", text) or abs(int(float(text))) > MAX_INT32:
        raise ValueError(text)
    return int(text.partition(".")[0])


def _integers(texts: Sequence[str]) -> npt.NDArray[np.int32]:
    return np.array(list(map(_integer, texts)), np.int32)


def _reals(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    if not re.fullmatch(r"[-+.0-9A-Za-z\n]+", "\n".join(texts)):
        raise ValueError
    return np.array(list(map(float, texts)))


def _booleans(texts: Sequence[str]) -> npt.NDArray[np.bool_]:
    known = {"0": False, "1": True, "0.0": False, "1.0": True, "False": False, "True": True}
    if not known.keys() >= set(texts):
        raise ValueError
    return np.array([known[text] for text in texts])


_TIME = re.compile(r"(?:(\d+) days?, )?(?:(\d+):(\d+):)?(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)")


def seconds(text: str) -> float:
    """Wall time as the logs print it: ``15.4``, ``9.5e-05``, ``0:00:25.419551`` or ``1 day, 0:00:01``."""
    if match := _TIME.fullmatch(text):
        days, hours, minutes, rest = map(float, match.groups(default="0"))
        total = 86400.0 * days + 3600.0 * hours + 60.0 * minutes + rest
        if math.isfinite(total):
            return total
    raise ValueError(f"not a time: {text!r}")


_CLOCKS = re.compile(r"(?:[0-9]++:[0-9]++:[0-9]++(?:\.[0-9]*+)?\n)++")


def _times(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    if not _CLOCKS.fullmatch("\n".join([*texts, ""])):
        return np.array(list(map(seconds, texts)), np.float32)
    parts = np.array(list(map(float, ":".join(texts).split(":")))).reshape(-1, 3)  # all together: there are millions
    return np.asarray(3600.0 * parts[:, 0] + 60.0 * parts[:, 1] + parts[:, 2], np.float32)


Conversion = Callable[[Sequence[str]], npt.NDArray[Any]]
_SHARED = {"idx": ("index", _integers), "label": ("label", _integers), "predict": ("prediction", _integers)}
_MORE = {"correct": ("correct", _booleans), "time": ("elapsed_s", _times)}
_CONVERSIONS: dict[LogKind, dict[str, tuple[str, Conversion]]] = {
    "certification": {**_SHARED, "radius": ("radius", _reals), **_MORE},
    "prediction": {**_SHARED, "basepredict": ("base_prediction", _integers), **_MORE},
}
"""By name in the header, the column of the records and what makes it from texts, or raises ValueError."""


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
    firsts = {text: int(np.argmax(is_wrong)) for text, is_wrong in wrong.items() if is_wrong.any()}
    if firsts:
        text = min(firsts, key=lambda text: firsts[text])
        row = {name: values[firsts[text]] for name, values in {**columns, "radius": radius}.items()}
        raise RecordError(text.format(**row))


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
