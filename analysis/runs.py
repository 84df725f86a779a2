"""Reads runs from a file of records, and reduces their widest columns to what is shown of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.errors import RecordError
from jobs.files import records
from jobs.files.layouts import RecordKind

Key = tuple[str, str]
_KEYS = ("train_key", "certify_key")
NUM_BINS = 25


@dataclass(frozen=True, kw_only=True, eq=False)
class Summary:
    """What is shown of a run's columns that are too large to keep for every model of a grid.

    Attributes:
        accuracy_under_noise: Of the base classifier on noisy images: the share of all n0 selection votes that are
            for the label, in [0, 1]. Unbiased in every mode: all n0 votes are always cast.
        elapsed_s: Seconds of certification.
        bounds: How many images have p_lower in each of NUM_BINS equal bins of [0, 1], int64; None if they have none.
        clean_accuracy: Of the base classifier on images without noise, in [0, 1].
            What the records do not contain is nan.
    """

    accuracy_under_noise: float = math.nan
    elapsed_s: float = math.nan
    bounds: npt.NDArray[np.int64] | None = None
    clean_accuracy: float = math.nan


def summary_of(rows: pa.Table, clean_accuracy: float = math.nan) -> Summary:
    """The summary of a run's rows, as far as they have the columns."""
    there = {name for name in rows.column_names if not rows[name].null_count}
    noisy, bounds = math.nan, None
    if {"counts0", "label"} <= there:
        votes_NK = votes_of(rows, "counts0")
        right_N = votes_NK[np.arange(len(rows)), rows["label"].to_numpy()]
        noisy = float(right_N.sum(dtype=np.int64) / votes_NK.sum(dtype=np.int64))
    if "p_lower" in there:
        bounds = np.histogram(rows["p_lower"].to_numpy(), bins=NUM_BINS, range=(0.0, 1.0))[0]
    return Summary(
        accuracy_under_noise=noisy,
        elapsed_s=float(rows["elapsed_s"].to_numpy().sum(dtype=np.float64)) if "elapsed_s" in there else math.nan,
        bounds=bounds,
        clean_accuracy=clean_accuracy,
    )


def votes_of(rows: pa.Table, name: str) -> npt.NDArray[np.int32]:
    """A column of votes, shape (N, K)."""
    return np.asarray(rows[name].combine_chunks().flatten().to_numpy()).reshape(len(rows), -1)


def read_runs(
    path: Path, kind: RecordKind, columns: Sequence[str], wanted: Collection[Key]
) -> Iterator[tuple[Key, pa.Table]]:
    """Some columns of some runs in a file, with their keys; parts of the file that hold none of them are not read.

    Raises:
        RecordError: The file is invalid, or the rows of a run are not contiguous.
    """
    seen: set[Key] = set()
    pieces = _pieces(path, kind, columns, {train_key for train_key, _ in wanted})
    for key, of_run in itertools.groupby(pieces, key=lambda piece: piece[0]):
        if key in seen:
            raise RecordError(f"{path}: the rows of a run are not contiguous; remove the file and create it again")
        seen.add(key)
        if key in wanted:
            yield key, pa.concat_tables([rows for _, rows in of_run])


def _pieces(
    path: Path, kind: RecordKind, columns: Sequence[str], train_keys: Collection[str]
) -> Iterator[tuple[Key, pa.Table]]:
    """The rows of each run in each row group."""
    for group in records.read_row_groups(path, kind, [*_KEYS, *columns], train_keys):
        rows, keys = group.select(list(columns)), [group[name].combine_chunks() for name in _KEYS]
        codes = [key.indices.to_numpy() for key in keys]
        changes = np.flatnonzero((np.diff(codes[0]) != 0) | (np.diff(codes[1]) != 0)) + 1
        for start, stop in itertools.pairwise([0, *changes.tolist(), len(group)] if len(group) else []):
            yield (keys[0][start].as_py(), keys[1][start].as_py()), rows.slice(start, stop - start)
