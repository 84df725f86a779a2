"""Reads runs from a file of records."""

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from analysis.models import ROW_COLUMNS, CertifiedModel
from jobs.errors import RecordError
from jobs.files import records
from jobs.files.layouts import RecordKind
from jobs.files.summary import SUMMED, read_summary, summary_of

Key = tuple[str, str]
_KEYS = ("train_key", "certify_key")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What to read, and what to keep of each model."""

    more: tuple[str, ...] = ()  # columns besides ROW_COLUMNS
    # Applied to each model before the next is read, since the rows of all take much memory
    keep: Callable[[CertifiedModel], CertifiedModel] = lambda model: model

    def columns(self, *, is_summary_known: bool = False) -> list[str]:
        """The columns to read."""
        return list(dict.fromkeys((*ROW_COLUMNS, *self.more, *(() if is_summary_known else SUMMED))))

    def made(self, model: CertifiedModel, rows: pa.Table, summary: str | None = None) -> CertifiedModel:
        """A model of these rows; ``summary`` is their summary's text, if known."""
        kept = rows.select([*ROW_COLUMNS, *self.more])
        return self.keep(replace(model, rows=kept, summary=read_summary(summary) if summary else summary_of(rows)))


ALL_ROWS = Reading()


def read_runs(
    path: Path, kind: RecordKind, columns: Sequence[str], wanted: Collection[Key]
) -> Iterator[tuple[Key, pa.Table]]:
    """Some columns of some runs in a file, with their keys; reads only the parts of the file that contain them.

    Raises RecordError if the file is invalid, or if the rows of a run are not contiguous.
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
