"""Reads a tree of published logs as two tables of records, and a list of findings."""

import hashlib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from analysis.logs.files import Log, LogKind, join_ranks, over_reach, read_file, read_log
from analysis.logs.mapping import LogMapping
from analysis.logs.paths import LogPath, is_named_like_a_log, parse_log_path
from analysis.models import short_ones
from jobs.errors import ConfigError, RecordError
from jobs.files.imported import IMPORTED, PREDICTIONS
from jobs.files.layouts import RecordKind
from jobs.specs.keys import canonical_json, decimal

Verdict = Literal["left out", "kept", "ignored"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A finding about a file."""

    path: str  # below the root
    num_rows: int  # rows that were read from it
    verdict: Verdict  # ignored: the file is not a log
    reason: str  # a message that begins with the kind of finding and a colon

    @property
    def kind(self) -> str:
        """Such as malformed, contradictory, short, form."""
        return self.reason.partition(":")[0]

    @property
    def is_harmless(self) -> bool:
        """Whether the log can be used without reservations."""
        return self.kind in ("not a log", "rounded up in print", "form", "duplicate")


@dataclass(kw_only=True, eq=False)
class LogEntry:
    """One log, or one joined from those of several processes, on its way into the tables."""

    path: str
    parsed: LogPath
    log: Log
    images: str = ""  # which of several lists of images it is on

    @property
    def indices(self) -> npt.NDArray[np.int32]:
        return self.log.columns["index"]

    @property
    def num_rows(self) -> int:
        return self.indices.size

    @property
    def identity(self) -> str:
        """All its parameters; two logs with the same identity are the same log twice."""
        told = {"kind": self.log.kind, "variant": self.parsed.variant, **self.parsed.fields}
        return canonical_json(told | ({"images": self.images} if self.is_on_others else {}))

    @property
    def data(self) -> str:
        """Its data set and split."""
        return f"{self.parsed.fields['dataset']} {self.parsed.fields.get('split', 'test')}"

    @property
    def is_on_others(self) -> bool:
        """Whether its images differ from those of most logs."""
        return self.images not in ("", "list 1")

    def finding(self, verdict: Verdict, reason: str) -> Finding:
        num_rows = 0 if verdict == "left out" else self.num_rows
        return Finding(path=self.path, num_rows=num_rows, verdict=verdict, reason=reason)


@dataclass(frozen=True, kw_only=True, eq=False)
class LogTree:
    """All valid logs of a tree."""

    logs: list[LogEntry]  # those of certifications, then those of predictions
    findings: list[Finding]  # the harmless ones last
    num_files: int  # files looked at

    def of(self, kind: LogKind) -> list[LogEntry]:
        """The logs of one kind."""
        return [entry for entry in self.logs if entry.log.kind == kind]

    @property
    def models(self) -> list[dict[str, Any]]:
        """Per certification log the columns that all its rows share, ``images``, ``recipe`` and ``num_rows``."""
        return [
            {**_run_columns(entry), "images": entry.images, "recipe": _recipe(entry), "num_rows": entry.num_rows}
            for entry in self.of("certification")
        ]

    def tables(self, kind: LogKind) -> Iterator[pa.Table]:
        """Log by log the rows of one kind, with the columns of IMPORTED or of PREDICTIONS; strings as dictionaries."""
        return map(_table, self.of(kind))


def read_tree(root: Path, mapping: LogMapping) -> LogTree:
    """Read every log below a folder, links included. Raises ConfigError if a pattern of the mapping matches none."""
    findings: list[Finding] = []
    paths = list(_files(root, findings))
    parts = [entry for path in paths if (entry := _read(root, path, mapping, findings))]
    mapping.check_used()
    entries = _without_twins(_on_their_images(_joined(parts, findings), findings), findings)
    findings += itertools.chain(*map(_kept_in_spite_of, entries))
    for entry, num_images in short_ones(entries, lambda entry: (entry.data, entry.log.kind, entry.images)):
        others = f"the {num_images} images of most {entry.data} {entry.log.kind} logs"
        findings.append(entry.finding("kept", f"short: {entry.num_rows} of {others}"))
    return LogTree(
        logs=sorted(entries, key=lambda entry: entry.log.kind),
        findings=sorted(findings, key=lambda finding: (finding.is_harmless, finding.path)),
        num_files=len(paths),
    )


def _files(root: Path, findings: list[Finding]) -> Iterator[str]:
    """Paths below the root, sorted folder by folder; links are followed, but not back to a folder they lie in."""

    def unreadable(error: OSError) -> None:
        path = Path(error.filename).relative_to(root).as_posix()
        findings.append(Finding(path=path, num_rows=0, verdict="left out", reason=f"unreadable: {error.strerror}"))

    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=unreadable):
        here = Path(folder).resolve()
        subfolders[:] = sorted(name for name in subfolders if not here.is_relative_to((here / name).resolve()))
        for name in sorted(names):
            yield (Path(folder) / name).relative_to(root).as_posix()


def _read(root: Path, path: str, mapping: LogMapping, findings: list[Finding]) -> LogEntry | None:
    """The log in one file; None, and a finding, if there is none or it cannot be used."""
    try:
        content = read_file(root / path)
        if content is None and not is_named_like_a_log(PurePosixPath(path)):
            raise RecordError("not a log: it has no log header")
        text, stored = content or ("", [])
        log = read_log(text)
        given = mapping.fields_of(PurePosixPath(path))
        parsed = parse_log_path(PurePosixPath(path), log.kind, columns=log.fields, given=given)
    except (RecordError, OSError) as error:
        reason = str(error) if isinstance(error, RecordError) else f"unreadable: {error.strerror or error}"
        verdict: Verdict = "ignored" if reason.startswith("not a log:") else "left out"
        findings.append(Finding(path=path, num_rows=0, verdict=verdict, reason=reason))
        return None
    links = any((root / above).is_symlink() for above in (PurePosixPath(path), *PurePosixPath(path).parents))
    log.notes[:0] = [*stored, *(["reached by a symbolic link"] if links else [])]
    log.notes += parsed.notes
    return LogEntry(path=path, parsed=parsed, log=log)


def _joined(parts: Sequence[LogEntry], findings: list[Finding]) -> list[LogEntry]:
    """The logs of several processes as one, each named by its first part."""
    groups: dict[tuple[bool, str], list[LogEntry]] = {}
    for entry in parts:
        is_part = entry.parsed.rank is not None
        groups.setdefault((is_part, entry.identity if is_part else entry.path), []).append(entry)
    entries = []
    for (is_part, _), group in groups.items():
        if not is_part:
            entries += group
            continue
        ranks = sorted({entry.parsed.rank or 0 for entry in group})
        try:
            if len(ranks) < len(group):
                raise RecordError(f"contradictory: several logs with the same rank ({', '.join(map(str, ranks))})")
            log = join_ranks([entry.log for entry in group])
        except RecordError as error:
            findings += [entry.finding("left out", str(error)) for entry in group]
            continue
        joined = LogEntry(path=group[0].path, parsed=group[0].parsed, log=log)
        absent = sorted(set(range(ranks[-1] + 1)) - set(ranks))
        if absent:
            findings.append(joined.finding("kept", f"short: no log of rank {', '.join(map(str, absent))}"))
        log.notes.append(f"joined from {len(group)} {'part' if len(group) == 1 else 'parts'}")
        entries.append(joined)
    return entries


def _on_their_images(entries: Sequence[LogEntry], findings: list[Finding]) -> list[LogEntry]:
    """The entries, each told which list of images it is on: an image has one label all over a list.

    Where there is one list only it has no name; of several, that of most logs is list 1. A log that contradicts list 1
    in a few labels is left out; one that contradicts it in most is on other images, or on the same in another order,
    and never compared with it.
    """
    groups: dict[tuple[str, bytes, bytes], list[LogEntry]] = {}  # most logs have the same images with the same labels
    for entry in entries:
        shared = (entry.data, entry.indices.tobytes(), entry.log.columns["label"].tobytes())
        groups.setdefault(shared, []).append(entry)
    lists: dict[str, list[tuple[dict[int, int], list[list[LogEntry]]]]] = {}
    for (data, *_), group in groups.items():
        found, pairs = lists.setdefault(data, []), _labels_of(group[0])
        known, fitting = next((one for one in found if not _conflicts(pairs, one[0])), ({}, []))
        if not fitting:
            found.append((known, fitting))
        known.update(pairs)
        fitting.append(group)
    left_out: set[int] = set()
    for name, found in lists.items():
        (labels, usual), *others = sorted(found, key=lambda one: -sum(map(len, one[1])))
        number = 2
        for _, fitting in others:
            for group in fitting:
                pairs = _labels_of(group[0])
                conflicts = _conflicts(pairs, labels)
                if not conflicts:
                    continue  # it fits both lists, whose labels agree on its images
                is_slip = len(conflicts) < len(pairs) / 2
                where = next(ours[0].path for ours in usual if conflicts[0] in ours[0].indices)
                reason = f"image {conflicts[0]} has label {pairs[conflicts[0]]}, but {labels[conflicts[0]]} in {where}"
                for entry in group:
                    if is_slip or entry.log.kind == "prediction":  # curves of predictions use all records
                        kind = "contradictory" if is_slip else "other images"
                        findings.append(entry.finding("left out", f"{kind}: {reason}"))
                        left_out.add(id(entry))
                        continue
                    entry.images = f"list {number}"
                    apart = f"other images: {reason}; {entry.images} of {name}, not compared with others"
                    findings.append(entry.finding("kept", apart))
            number += any(entry.is_on_others for group in fitting for entry in group)
        if number > 2:
            for entry in itertools.chain.from_iterable(usual):
                entry.images = "list 1"
    return [entry for entry in entries if id(entry) not in left_out]


def _labels_of(entry: LogEntry) -> dict[int, int]:
    return dict(zip(entry.indices.tolist(), entry.log.columns["label"].tolist(), strict=True))


def _conflicts(pairs: Mapping[int, int], labels: Mapping[int, int]) -> list[int]:
    """The images with different labels in the two."""
    return [index for index, label in pairs.items() if labels.get(index, label) != label]


def _without_twins(entries: Sequence[LogEntry], findings: list[Finding]) -> list[LogEntry]:
    """The first log, by path, of each group with the same parameters."""
    first: dict[str, LogEntry] = {}
    for entry in entries:
        other = first.setdefault(entry.identity, entry)
        if other is entry:
            continue
        names = entry.log.columns.keys() - {"elapsed_s"}
        is_same = all(np.array_equal(entry.log.columns[name], other.log.columns[name]) for name in names)
        what = "duplicate: the same rows" if is_same else "contradictory: other rows, but the same parameters"
        findings.append(entry.finding("left out", f"{what} as {other.path}, which comes first and is used"))
    return list(first.values())


def _kept_in_spite_of(entry: LogEntry) -> list[Finding]:
    fields, log, assumed = entry.parsed.fields, entry.log, ", ".join(entry.parsed.assumed)
    settings = {name: fields[name] for name in ("n", "alpha") if name in fields}
    reasons = [
        f"assumed: {assumed}, because the path does not say; set it with mapping=FILE" if assumed else None,
        "cut off: the last line is incomplete and left out" if log.is_cut else None,
        f"form: {'; '.join(log.notes)}" if log.notes else None,
        over_reach(log, fields["sigma_cert"], **settings) if log.kind == "certification" else None,
    ]
    return [entry.finding("kept", reason) for reason in reasons if reason]


def _run_columns(entry: LogEntry) -> dict[str, Any]:
    """The columns that all rows of a certification log share: keys like those of our runs, and its parameters."""
    fields = entry.parsed.fields
    trained = {name: value for name, value in fields.items() if name not in _OF_CERTIFICATION}
    name = fields.get("attack") or "unknown"
    method = fields.get("method") or "unknown"
    slug = f"{fields['dataset']}-{name if name not in ('none', 'unknown') and method in _OF_THE_PAPER else method}"
    for letter, field in (("s", "sigma_train"), ("e", "epsilon"), ("m", "m_train"), ("t", "num_steps")):
        if field in fields and (name != "none" or field == "sigma_train"):
            value = fields[field]
            slug += f"-{letter}{value:.2f}" if isinstance(value, float) else f"-{letter}{value}"
    images = f"-{entry.images.replace(' ', '')}" if entry.is_on_others else ""
    certify_key = f"s{decimal(fields['sigma_cert'])}-{fields['split']}-log{images}"
    keys = {"train_key": f"{slug}-{_digest(entry, trained)}", "certify_key": certify_key}
    return {**keys, **fields, **_origin(entry, IMPORTED)}


def _recipe(entry: LogEntry) -> str:
    """A text that is the same for logs that differ only in their seed; empty if none has a seed."""
    fields = dict(entry.parsed.fields)
    return "" if fields.pop("seed", None) is None else _digest(entry, fields)


def _digest(entry: LogEntry, fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json({"variant": entry.parsed.variant, **fields}).encode()).hexdigest()[:8]


_OF_CERTIFICATION = ("sigma_cert", "split", "n0", "n", "alpha", "noise", "precision")
_OF_THE_PAPER = ("unknown", "smoothadv", "vanilla", "vanilla_noise")  # whose attack says more than the method


def _origin(entry: LogEntry, kind: RecordKind) -> dict[str, Any]:
    given = {*entry.parsed.fields, *entry.log.columns, "train_key", "certify_key", "variant", "source"}
    silent = [name for name in kind.schema.names if name not in given]
    return {"variant": entry.parsed.variant, "source": f"{entry.path}; not in the log: {', '.join(silent)}"}


def _table(entry: LogEntry) -> pa.Table:
    """The rows of a log, with shared columns repeated and unknown columns null."""
    is_certification = entry.log.kind == "certification"
    kind = IMPORTED if is_certification else PREDICTIONS
    shared = _run_columns(entry) if is_certification else {**entry.parsed.fields, **_origin(entry, kind)}
    arrays = []
    for field in kind.schema:
        if field.name in entry.log.columns:
            array = pa.array(entry.log.columns[field.name], field.type)
        else:
            array = pa.repeat(pa.scalar(shared.get(field.name), field.type), entry.num_rows)
            array = array.dictionary_encode() if field.type == pa.string() else array
        arrays.append(array)
    return pa.Table.from_arrays(arrays, names=kind.schema.names)


def source_folder(source: str | None) -> Path:
    """The folder of logs in a configuration. Raises ConfigError if it does not exist."""
    if source is None:
        raise ConfigError(["source is required; write source=DIR: the folder that holds the logs"])
    if not Path(source).is_dir():
        raise ConfigError([f"source: {source!r} is not a folder"])
    return Path(source)
