"""The progress of a unit: how much is saved, when it last made progress, and its usual pace."""

import contextlib
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from jobs.files import records
from jobs.files.store import Store
from jobs.specs.units import Unit

_SLOW_FACTOR = 5.0
"""A unit is slow if it makes no progress for this many times its usual interval."""
_NEVER_SLOW_S = 60.0
"""Results are saved only now and then: a pause up to this long is normal."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """When a running unit last made progress."""

    age_s: float  # seconds since then, or since it began
    usual_s: float | None  # seconds that one image or one epoch usually takes; None if unknown

    @property
    def is_slow(self) -> bool:
        """Whether it takes several times as long as usual."""
        return self.usual_s is not None and self.age_s > max(_NEVER_SLOW_S, _SLOW_FACTOR * self.usual_s)


def progress_of(unit: Unit, store: Store) -> int:
    """The number of saved images or epochs of a unit."""
    if unit.run is not None:
        num_finished = len(unit.indices) - len(store.unfinished(unit.run.place, unit.indices))
        return num_finished + records.num_rows(store.partial_path(unit.run.place, unit.indices))
    return max(store.saved_epochs(unit.train.key), default=0) if unit.train is not None else 0


def pace_of(unit: Unit, store: Store, log_path: Path) -> Pace | None:
    """The pace of a running unit, by the times of its log and of the files it saves; None if there are none."""
    last = max(_times([log_path, *_saved(unit, store)]), default=None)
    if last is None:
        return None
    age_s = max(0.0, time.time() - last)
    return Pace(age_s=age_s, usual_s=_usual_s(unit, store) if age_s > _NEVER_SLOW_S else None)


def _saved(unit: Unit, store: Store) -> list[Path]:
    """The files that a unit saves while it runs, the oldest first."""
    if unit.run is not None:
        return [store.partial_path(unit.run.place, unit.indices)]
    if unit.train is None:
        return []
    return [store.state_path(unit.train.key, epoch) for epoch in store.saved_epochs(unit.train.key)]


def _usual_s(unit: Unit, store: Store) -> float | None:
    if unit.run is not None:
        finished = [store.shard_path(unit.run.place, shard) for shard in store.finished_shards(unit.run.place)]
        for path in [store.partial_path(unit.run.place, unit.indices), *finished[-1:]]:
            with contextlib.suppress(ValueError, KeyError, OSError):  # there may be no rows, or no file any more
                return statistics.fmean(times_in(path)[0])
        return None
    times = [*_times(_saved(unit, store))]
    return times[-1] - times[-2] if len(times) >= 2 else None


def times_in(path: Path) -> tuple[list[float], str | None]:
    """The seconds that each row of a file took, and the device, if the file says it.

    Raises ValueError or KeyError if it is another kind of file, or damaged.
    """
    with pq.ParquetFile(path, page_checksum_verification=True) as file:  # read_table would import pyarrow.dataset
        metadata, table = file.schema_arrow.metadata or {}, file.read(columns=["elapsed_s"])
        device = metadata.get(b"device")
        return [math.nan if s is None else s for s in table["elapsed_s"].to_pylist()], device and device.decode()


def _times(paths: list[Path]) -> Iterator[float]:
    for path in paths:
        with contextlib.suppress(OSError):  # it is being replaced
            yield path.stat().st_mtime
