"""A whole tree of published logs as two tables of records, and a list of what is not as it should be."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from analysis.logs.files import Log, over_reach, read_log
from analysis.logs.paths import LogPath, parse_log_path
from jobs.errors import ConfigError, RecordError
from jobs.files.imported import IMPORTED, PREDICTIONS
from jobs.files.records import RecordKind
from jobs.specs.keys import canonical_json, decimal

Verdict = Literal["left out", "kept", "ignored"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One file that is not as it should be.

    Attributes:
        path: Below the root.
        num_rows: Rows that were read from it.
        verdict: left out; kept in spite of it; ignored, as the file is no log.
        reason: In words, beginning with the kind of finding and a colon.
    """

    path: str
    num_rows: int
    verdict: Verdict
    reason: str

    @property
    def kind(self) -> str:
        """empty, malformed, contradictory, path, short, other alpha or n, rounded up in print, not a log."""
        return self.reason.partition(":")[0]

    @property
    def is_harmless(self) -> bool:
        """Whether a careful reader may still take the log as it is: print rounds to nearest in all of them."""
        return self.kind in ("not a log", "rounded up in print")


@dataclass(frozen=True, kw_only=True, eq=False)
class LogTree:
    """All sound logs of a tree.

    Attributes:
        models: Per certification log the columns that all its rows share, and num_rows.
        records: Of kind IMPORTED, in the order of ``models``.
        predictions: Of kind PREDICTIONS.
        findings: The harmless ones last.
        num_files: Files looked at.
    """

    models: tuple[dict[str, Any], ...]
    records: pa.Table
    predictions: pa.Table
    findings: tuple[Finding, ...]
    num_files: int


def read_tree(root: Path) -> LogTree:
    """Read every log below a folder.

    Args:
        root: Of a tree in the layout of the published repositories.
    """
    sound: list[tuple[str, LogPath, Log]] = []
    findings: list[Finding] = []
    labels: dict[tuple[str, int], tuple[int, str]] = {}
    seen: dict[str, str] = {}
    num_files = 0
    for path in _files(root):
        num_files += 1
        try:
            parsed = parse_log_path(PurePosixPath(path))
            if parsed is None:
                findings.append(Finding(path=path, num_rows=0, verdict="ignored", reason="not a log: by its name"))
                continue
            log = read_log((root / path).read_text(encoding="utf-8"), parsed.kind)
            _check_unseen(parsed, path, seen)
            _check_labels(parsed, log, path, labels)
        except (RecordError, UnicodeDecodeError, OSError) as error:
            reason = str(error) if isinstance(error, RecordError) else f"malformed: {error}"
            findings.append(Finding(path=path, num_rows=0, verdict="left out", reason=reason))
            continue
        sound.append((path, parsed, log))
    findings += _short_logs(sound) + _over_reaching(sound)
    certifications = [entry for entry in sound if entry[1].kind == "certification"]
    predictions = [entry for entry in sound if entry[1].kind == "prediction"]
    models = [_run_columns(path, parsed) for path, parsed, _ in certifications]
    return LogTree(
        models=tuple(
            {**model, "num_rows": len(log.columns["index"])}
            for model, (_, _, log) in zip(models, certifications, strict=True)
        ),
        records=_table(IMPORTED, models, [log for _, _, log in certifications]),
        predictions=_table(
            PREDICTIONS,
            [{**parsed.fields, **_origin(path, parsed, PREDICTIONS)} for path, parsed, _ in predictions],
            [log for _, _, log in predictions],
        ),
        findings=tuple(sorted(findings, key=lambda finding: (finding.is_harmless, finding.path))),
        num_files=num_files,
    )


def _files(root: Path) -> Iterator[str]:
    for folder, subfolders, names in os.walk(root):
        subfolders.sort()
        for name in sorted(names):
            yield (Path(folder) / name).relative_to(root).as_posix()


def _check_unseen(parsed: LogPath, path: str, seen: dict[str, str]) -> None:
    identity = canonical_json({"kind": parsed.kind, "variant": parsed.variant, **parsed.fields})
    other = seen.setdefault(identity, path)
    if other != path:
        raise RecordError(f"contradictory: says the same of itself as {other}")


def _check_labels(parsed: LogPath, log: Log, path: str, labels: dict[tuple[str, int], tuple[int, str]]) -> None:
    """The label of an image is the same in all logs of a data set (and split, where both give one)."""
    images = f"{parsed.fields['dataset']} {parsed.fields.get('split', 'test')}"
    for index, label in zip(log.columns["index"], log.columns["label"], strict=True):
        first_label, first_path = labels.setdefault((images, index), (label, path))
        if first_label != label:
            raise RecordError(f"contradictory: image {index} has label {label}, but {first_label} in {first_path}")


def _short_logs(sound: Sequence[tuple[str, LogPath, Log]]) -> list[Finding]:
    """Logs that hold only a part of the images that most logs of their data set hold."""
    by_images: dict[str, Counter[tuple[int, ...]]] = {}
    for _, parsed, log in sound:
        by_images.setdefault(_images(parsed), Counter())[tuple(log.columns["index"])] += 1
    usual = {images: counter.most_common(1)[0][0] for images, counter in by_images.items()}
    findings = []
    for path, parsed, log in sound:
        whole, indices = usual[_images(parsed)], tuple(log.columns["index"])
        if indices != whole and set(indices) < set(whole):
            reason = f"short: {len(indices)} of the {len(whole)} images that most logs of {_images(parsed)} hold"
            findings.append(Finding(path=path, num_rows=len(indices), verdict="kept", reason=reason))
    return findings


def _images(parsed: LogPath) -> str:
    return f"{parsed.fields['dataset']} {parsed.kind}"


def _over_reaching(sound: Sequence[tuple[str, LogPath, Log]]) -> list[Finding]:
    findings = []
    for path, parsed, log in sound:
        if parsed.kind == "certification":
            reason = over_reach(log.radius_texts, parsed.fields["sigma_cert"])
            if reason is not None:
                num_rows = len(log.columns["index"])
                findings.append(Finding(path=path, num_rows=num_rows, verdict="kept", reason=reason))
    return findings


def _run_columns(path: str, parsed: LogPath) -> dict[str, Any]:
    """The columns that all rows of a certification log share: keys as our own runs have, and what the path says."""
    fields = parsed.fields
    trained = {name: value for name, value in fields.items() if name not in ("sigma_cert", "split")}
    digest = hashlib.sha256(canonical_json({"variant": parsed.variant, **trained}).encode()).hexdigest()[:8]
    name = fields.get("attack") or "unknown"
    slug = f"{fields['dataset']}-{fields.get('method', 'unknown') if name == 'none' else name}"
    for letter, field in (("s", "sigma_train"), ("e", "epsilon"), ("m", "m_train"), ("t", "num_steps")):
        if field in fields and (name != "none" or field == "sigma_train"):
            value = fields[field]
            slug += f"-{letter}{value:.2f}" if isinstance(value, float) else f"-{letter}{value}"
    keys = {"train_key": f"{slug}-{digest}", "certify_key": f"s{decimal(fields['sigma_cert'])}-{fields['split']}-log"}
    return {**keys, **fields, **_origin(path, parsed, IMPORTED)}


def _origin(path: str, parsed: LogPath, kind: RecordKind) -> dict[str, Any]:
    given = {*parsed.fields, "train_key", "certify_key", "index", "label", "prediction", "radius", "correct"}
    given |= {"elapsed_s", "base_prediction", "variant", "source"}
    silent = [name for name in kind.schema.names if name not in given]
    return {"variant": parsed.variant, "source": f"{path}; not in the log: {', '.join(silent)}"}


def _table(kind: RecordKind, shared: Sequence[dict[str, Any]], logs: Sequence[Log]) -> pa.Table:
    """One table of all logs: what a log's rows share is repeated, what is nowhere is null."""
    sizes = np.array([len(log.columns["index"]) for log in logs], dtype=np.int64)
    owner = pa.array(np.repeat(np.arange(len(logs)), sizes))
    arrays = []
    for field in kind.schema:
        if logs and field.name in logs[0].columns:
            array = pa.array([value for log in logs for value in log.columns[field.name]], field.type)
        else:
            array = pa.array([entry.get(field.name) for entry in shared], field.type).take(owner)
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=kind.schema)


def source_folder(source: str | None) -> Path:
    """The folder of logs that a configuration names.

    Raises:
        ConfigError: None is named, or it is not there.
    """
    if source is None:
        raise ConfigError(["source is required; write source=DIR: the folder that holds the logs"])
    if not Path(source).is_dir():
        raise ConfigError([f"source: {source!r} is not a folder"])
    return Path(source)
