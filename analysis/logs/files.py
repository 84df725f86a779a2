"""Text logs as columns: one line per image below a header, refused where they contradict themselves.

A file is a log because it has the header, whatever its name. What certifiers write differently (separators,
columns, repeated lines after a restart, compression) is read, and each difference is noted.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import math
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from jobs.errors import RecordError
from smoothing.radius import ABSTAIN, max_radius

LogKind = Literal["certification", "prediction"]

HEADERS: dict[LogKind, list[str]] = {
    "certification": ["idx", "label", "predict", "radius", "correct", "time"],
    "prediction": ["idx", "label", "predict", "basePredict", "correct", "time"],
}
_EVERY_LOG = {"idx", "label", "predict"}  # a line with these words is a log's header
_OPTIONAL = "time"

MAX_INT32 = 2**31 - 1
"""The largest integer that a column of the records holds."""

PUBLISHED_N, PUBLISHED_ALPHA = 100_000, 0.001
"""What Cohen et al. 2019 and Salman et al. 2019 say they certified with. No log says it."""

_HEAD_BYTES = 4096  # the header is looked for in these: a file without it is not read to its end
_HEAD_LINES = 20


@dataclass(kw_only=True)
class Log:
    """The lines of one log.

    Attributes:
        kind: Which of the two formats.
        columns: Record columns by name, all of one length >= 1, indices ascending. Without ``elapsed_s``
            where the log has no times.
        radius_texts: The radii as printed, for certification logs; empty for predictions.
        fields: What its columns say of the whole log: sigma_cert, where a column sigma has one value.
        notes: How it differs from the published format, in words; none of it changes what it says.
        is_cut: Whether its last line was cut off, and left out.
    """

    kind: LogKind
    columns: dict[str, list[Any]]
    radius_texts: list[str]
    fields: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    is_cut: bool = False


def read_file(path: Path) -> tuple[str, list[str]] | None:
    """The text of a file, and notes on how it is stored; None where its first lines hold no header.

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
    """The content of a log.

    Args:
        text: The whole file.

    Raises:
        RecordError: It is empty, malformed (names the line) or contradicts itself (names the image).
    """
    lines = text.replace("\r\n", "\n").split("\n")
    is_open_ended = lines[-1] != ""
    start = _header_line(lines)
    if start is None:
        raise RecordError(f"malformed: no header {' '.join(HEADERS['certification'])} in the first lines")
    split = _splitter(lines[start])
    header = [name.strip().lower() for name in split(lines[start])]
    kind: LogKind = "prediction" if "basepredict" in header else "certification"
    notes = [f"{start} lines before the header"] if start else []
    notes += _header_notes(lines[start], header, kind)
    cells, repeats = [], 0
    for line_nr, line in enumerate(lines[start + 1 :], start=start + 2):
        row = split(line)
        if [name.strip().lower() for name in row] == header:
            repeats += 1
        elif line.strip():
            cells.append((line_nr, row))
    if repeats:
        notes.append(f"{repeats} more {'header' if repeats == 1 else 'headers'}, as after a restart")
    if not cells:
        raise RecordError("empty: a header and no rows")
    is_cut = is_open_ended and _is_incomplete(cells[-1][1], header, kind)
    if is_open_ended and not is_cut:
        notes.append("no newline at the end, so its last line may be cut off")
    log = _parsed(cells[:-1] if is_cut else cells, header, kind)
    return Log(kind=kind, **{**log, "notes": notes + log["notes"]}, is_cut=is_cut)


def join_ranks(logs: Sequence[Log]) -> Log:
    """Logs that several processes wrote of one certification, as one.

    Raises:
        RecordError: Two of them contradict each other; names the image.
    """
    names = [name for name in logs[0].columns if all(name in log.columns for log in logs)]
    columns = {name: [value for log in logs for value in log.columns[name]] for name in names}
    texts = [text for log in logs for text in log.radius_texts]
    columns, texts, notes = _in_order(columns, texts)
    notes = [*dict.fromkeys(note for log in logs for note in log.notes), *notes]
    is_cut = any(log.is_cut for log in logs)
    return Log(
        kind=logs[0].kind, columns=columns, radius_texts=texts, fields=logs[0].fields, notes=notes, is_cut=is_cut
    )


def seconds(text: str) -> float:
    """Wall time as the logs print it: ``15.4``, ``9.5e-05``, ``0:00:25.419551`` or ``1 day, 0:00:01``."""
    match = re.fullmatch(r"(?:(\d+) days?, )?(?:(\d+):(\d+):)?(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)", text)
    if match is None:
        raise ValueError(f"not a time: {text!r}")
    days, hours, minutes = (float(part or 0) for part in match.groups()[:3])
    total = 86400.0 * days + 3600.0 * hours + 60.0 * minutes + float(match[4])
    if not math.isfinite(total):
        raise ValueError(f"not a time: {text!r}")
    return total


def over_reach(
    radius_texts: Sequence[str], sigma: float, n: int = PUBLISHED_N, alpha: float = PUBLISHED_ALPHA
) -> str | None:
    """What is wrong with radii that nobody can have certified with n and alpha.

    Args:
        radius_texts: As printed.
        sigma: Of the certification.
        n: Draws.
        alpha: Error probability.

    Returns:
        None where all are within reach; else a sentence: only rounded up, or another alpha.
    """
    limit = max_radius(n, alpha, sigma)
    beyond = [text for text in radius_texts if float(text) > limit]
    if not beyond:
        return None
    largest = max(beyond, key=float)
    claim = f"{len(beyond)} radii up to {largest} where n={n} and alpha={alpha} reach {limit:.6f}"
    unrounded = float(largest) - 0.5 * 10.0 ** int(Decimal(largest).as_tuple().exponent)
    if unrounded <= limit:
        return f"rounded up in print: {claim}"
    probability = 0.5 * math.erfc(-unrounded / sigma / math.sqrt(2))
    return f"other alpha or n: {claim}; at this n it takes alpha >= {probability**n:.2g}"


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
    """How the lines below a header are split: at tabs, at commas, or, where there are neither, at blanks."""
    if "\t" in header:
        return lambda line: line.split("\t")
    if "," in header:
        return lambda line: next(csv.reader([line], skipinitialspace=True), [""])
    num_blanks = len(header.split()) - 1
    return lambda line: line.split(maxsplit=num_blanks)  # the last may be "1 day, 2:03:04"


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
    """Whether a last line without a newline is cut off, or may be within a number that counts."""
    if len(row) < len(header) or header[-1] in ("idx", "label", "predict", "basepredict", "radius"):
        return True
    if len(row) > len(header):
        return False
    by_name = dict(zip(header, row, strict=True))
    return any(name in by_name and not _converts(convert, by_name[name]) for name, _, convert in _CONVERSIONS[kind])


def _parsed(cells: list[tuple[int, list[str]]], header: Sequence[str], kind: LogKind) -> dict[str, Any]:
    """columns, radius_texts, fields and notes of the lines."""
    for line_nr, row in cells:
        if len(row) != len(header):
            raise RecordError(f"malformed: line {line_nr} has {len(row)} fields instead of {len(header)}")
    if not cells:
        raise RecordError("empty: a header and a line that is cut off")
    texts = {name: [row[position] for _, row in cells] for position, name in enumerate(header)}
    columns: dict[str, list[Any]] = {}
    for name, column, convert in _CONVERSIONS[kind]:
        if name not in texts:
            continue
        try:
            columns[column] = [convert(text) for text in texts[name]]
        except ValueError:
            number = next(nr for nr, text in enumerate(texts[name]) if not _converts(convert, text))
            raise RecordError(f"malformed: line {cells[number][0]}, {name}: {texts[name][number]!r}") from None
    notes = [] if all(text.lstrip("-").isdigit() for text in texts["label"]) else ["integers written as 3.0"]
    if _blank_abstentions(columns):
        notes.append("abstentions with a radius of -1 or nan, taken for 0")
    _check(columns)
    columns, radius_texts, more = _in_order(columns, texts.get("radius", []))
    return {"columns": columns, "radius_texts": radius_texts, "fields": _told(texts), "notes": notes + more}


def _told(texts: dict[str, list[str]]) -> dict[str, Any]:
    """What a column says of the whole log."""
    if "sigma" not in texts:
        return {}
    found = set(texts["sigma"])
    if len(found) > 1:
        raise RecordError(f"contradictory: the column sigma holds {', '.join(sorted(found)[:3])}")
    text = found.pop()
    if not (_converts(_real, text) and math.isfinite(float(text)) and float(text) > 0):
        raise RecordError(f"malformed: the column sigma holds {text!r}")
    return {"sigma_cert": float(text)}


def _converts(convert: Any, text: str) -> bool:
    try:
        convert(text)
    except ValueError:
        return False
    return True


def _integer(text: str) -> int:
    """As records hold it; int() would also take blanks, underscores and other scripts' digits."""
    if not re.fullmatch(r"-?[0-9]{1,10}(\.0*)?", text) or int(float(text)) > MAX_INT32:
        raise ValueError(text)
    return int(text.partition(".")[0])


def _real(text: str) -> float:
    if not re.fullmatch(r"[-+.0-9A-Za-z]+", text):
        raise ValueError(text)
    return float(text)


def _boolean(text: str) -> bool:
    if text not in _BOOLEANS:
        raise ValueError(text)
    return _BOOLEANS[text]


_BOOLEANS = {"0": False, "1": True, "0.0": False, "1.0": True, "False": False, "True": True}

_SHARED = (("idx", "index", _integer), ("label", "label", _integer), ("predict", "prediction", _integer))
_MORE = (("correct", "correct", _boolean), ("time", "elapsed_s", seconds))
_CONVERSIONS: dict[LogKind, tuple[tuple[str, str, Any], ...]] = {
    "certification": (*_SHARED, ("radius", "radius", _real), *_MORE),
    "prediction": (*_SHARED, ("basepredict", "base_prediction", _integer), *_MORE),
}
"""Name in the header, column of the records, and what makes the one from the other."""


def _blank_abstentions(columns: dict[str, list[Any]]) -> int:
    """Set the radius of abstentions to 0 where it is a mark for "none"; how many there were."""
    marked = [
        number
        for number, (prediction, radius) in enumerate(
            zip(columns["prediction"], columns.get("radius", [0.0] * len(columns["index"])), strict=True)
        )
        if prediction == ABSTAIN and (radius == -1 or math.isnan(radius))
    ]
    for number in marked:
        columns["radius"][number] = 0.0
    return len(marked)


def _check(columns: dict[str, list[Any]]) -> None:
    """Each line is of one mind."""
    radii = columns.get("radius", [0.0] * len(columns["index"]))
    for index, label, prediction, radius, correct in zip(
        *(columns[name] for name in ("index", "label", "prediction")), radii, columns["correct"], strict=True
    ):
        if index < 0:
            raise RecordError(f"malformed: image {index}; indices begin at 0")
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


def _in_order(
    columns: dict[str, list[Any]], radius_texts: list[str]
) -> tuple[dict[str, list[Any]], list[str], list[str]]:
    """Rows by ascending index, each image once; with notes on what that changed.

    Raises:
        RecordError: An image is in twice and its rows differ in more than their time.
    """
    indices = columns["index"]
    order = sorted(range(len(indices)), key=lambda row: indices[row])
    notes = [] if order == list(range(len(indices))) else ["rows not in the order of the images"]
    says = list(zip(*(values for name, values in columns.items() if name != "elapsed_s"), strict=True))
    kept: list[int] = []
    for row in order:
        if not kept or indices[kept[-1]] != indices[row]:
            kept.append(row)
        elif says[kept[-1]] != says[row]:
            raise RecordError(f"contradictory: image {indices[row]} is in twice, with different results")
    if len(kept) < len(order):
        notes.append(f"{len(order) - len(kept)} rows repeated, as after a restart")
    in_order = {name: [values[row] for row in kept] for name, values in columns.items()}
    return in_order, [radius_texts[row] for row in kept] if radius_texts else [], notes
