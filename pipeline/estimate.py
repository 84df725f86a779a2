"""What is left of a grid, in device-hours and minutes, by the speed at which the finished part went."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow.parquet as pq

from jobs.files.store import Store
from jobs.specs.runs import SHARD_STAGES, Manifest, Run
from jobs.specs.units import Stage
from pipeline.cost import images_cost, train_cost
from pipeline.state.files import Observation

T = TypeVar("T")
_SAMPLES = 12  # files read for each stage, spread over what is finished


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Hours of one device (a GPU, or a CPU process), by stage; None where nothing was measured.

    Attributes:
        spent_h: Of what is finished.
        left_h: Of what is not.
    """

    spent_h: Mapping[Stage, float | None]
    left_h: Mapping[Stage, float | None]

    def minutes_left(self, num_parallel: int) -> float | None:
        """Minutes until everything is done with that many devices; None if unknown."""
        hours = list(self.left_h.values())
        if not num_parallel or any(value is None for value in hours):
            return None
        return 60 * sum(value or 0.0 for value in hours) / num_parallel


def estimate(manifest: Manifest, observed: Observation, store: Store) -> Estimate:
    """From the times in a few finished files of each stage. Reads only."""
    specs = manifest.models
    trained = [spec for key, spec in specs.items() if key in observed.trained]
    train_left = sum(train_cost(spec) for key, spec in specs.items() if key not in observed.trained)
    train_done = sum(map(train_cost, trained))
    train_s = _seconds_per_cost(  # the time is that of several devices at once
        (_elapsed_s(store.epochs_path(spec.key)), train_cost(spec) / spec.num_processes) for spec in _spread(trained)
    )
    spent_h: dict[Stage, float | None] = {"train": _hours(train_done, train_s)}
    left_h: dict[Stage, float | None] = {"train": _hours(train_left, train_s)}
    for stage in SHARD_STAGES:
        if runs := manifest.of(stage):  # few grids have attacks
            spent_h[stage], left_h[stage] = _shard_hours(runs, observed, store)
    return Estimate(spent_h=spent_h, left_h=left_h)


def _shard_hours(runs: Sequence[Run], observed: Observation, store: Store) -> tuple[float | None, float | None]:
    """Hours spent on certifications or attacks, and hours left."""
    left = done = 0.0
    shards = []
    for run in runs:
        num_missing = len(observed.missing(run))
        left += images_cost(run, num_missing)
        done += images_cost(run, len(run.indices) - num_missing)
        shards += [(run, shard) for shard in observed.finished(run)]
    seconds = _seconds_per_cost(
        (_elapsed_s(store.shard_path(run.place, shard)), images_cost(run, len(shard))) for run, shard in _spread(shards)
    )
    return _hours(done, seconds), _hours(left, seconds)


def _hours(cost: float, seconds_per_cost: float | None) -> float | None:
    if cost == 0:
        return 0.0
    return None if seconds_per_cost is None else cost * seconds_per_cost / 3600


def _seconds_per_cost(samples: Iterable[tuple[float | None, float]]) -> float | None:
    seconds = cost = 0.0
    for elapsed_s, unit_cost in samples:
        if elapsed_s is not None:
            seconds, cost = seconds + elapsed_s, cost + unit_cost
    return seconds / cost if cost else None


def _elapsed_s(path: Path) -> float | None:
    """The sum of a file's column elapsed_s; None if it cannot be read, which is for others to report."""
    try:
        table = pq.read_table(path, columns=["elapsed_s"], partitioning=None, page_checksum_verification=True)
    except (OSError, ValueError):  # pyarrow's errors are ValueErrors
        return None
    seconds = table["elapsed_s"].to_pylist()
    return float(sum(seconds)) if all(second is not None and 0 <= second < math.inf for second in seconds) else None


def _spread(items: list[T]) -> list[T]:
    return items[:: max(1, len(items) // _SAMPLES)][:_SAMPLES]
