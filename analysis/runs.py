"""Splits a file of records into its runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from jobs.errors import RecordError
from jobs.files import records
from jobs.files.layouts import RecordKind

_KEYS = ("train_key", "certify_key")


def split_runs(path: Path, kind: RecordKind, columns: Sequence[str]) -> dict[tuple[str, str], pa.Table]:
    """Some columns of every run in a file, by key. The rows of a run must be contiguous; nothing is copied."""
    table = records.read_records(path, kind, columns=[*_KEYS, *columns])
    if not len(table):
        return {}
    keys = [table[name].combine_chunks() for name in _KEYS]
    codes = [key.indices.to_numpy() for key in keys]
    changes = np.flatnonzero((np.diff(codes[0]) != 0) | (np.diff(codes[1]) != 0)) + 1
    starts, stops = [0, *changes.tolist()], [*changes.tolist(), len(table)]
    rows = table.select(list(columns))
    runs = [
        ((keys[0][start].as_py(), keys[1][start].as_py()), rows.slice(start, stop - start))
        for start, stop in zip(starts, stops, strict=True)
    ]
    by_key = dict(runs)
    if len(by_key) < len(runs):
        raise RecordError(f"{path}: the rows of a run are not contiguous; remove the file and create it again")
    return by_key
