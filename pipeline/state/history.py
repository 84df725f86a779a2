"""Recorded failures of the units that are not done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from jobs.files.failures import Failure, failures_of
from jobs.files.store import Store
from jobs.specs.indices import IndexRange
from jobs.specs.runs import Manifest
from jobs.specs.units import AggregateUnit, ShardUnit, TrainUnit
from pipeline.state.files import Observation


@dataclass(frozen=True, kw_only=True)
class History:
    """Failures, the oldest first, of units that are not done.

    Attributes:
        train: By train key.
        shards: By the name of the certification or attack, and shard; shards that still lack an image.
        aggregate: Of the grid's aggregation, unless its file is current.
    """

    train: Mapping[str, tuple[Failure, ...]] = field(default_factory=dict)
    shards: Mapping[str, Mapping[IndexRange, tuple[Failure, ...]]] = field(default_factory=dict)
    aggregate: tuple[Failure, ...] = ()

    def __iter__(self) -> Iterator[tuple[Failure, ...]]:
        """The failures of each unit that has any."""
        yield from (those for those in self.train.values() if those)
        yield from (those for shards in self.shards.values() for those in shards.values())
        yield from (those for those in (self.aggregate,) if those)

    @property
    def last(self) -> dict[str, Failure]:
        """The last failure of each unit, by its name."""
        return {failures[-1].unit: failures[-1] for failures in self}


NO_HISTORY = History()


def read_history(manifest: Manifest, observed: Observation, store: Store) -> History:
    """The failures of what is not done: one listing per unfinished run, and the records it names."""
    train = {
        key: tuple(failures_of(store, TrainUnit(train=train)))
        for key, train in manifest.models.items()
        if key not in observed.trained
    }
    shards: dict[str, dict[IndexRange, tuple[Failure, ...]]] = {}
    for run in manifest.runs:
        missing = set(observed.missing(run))
        if missing:
            failed = _touching(store.failed_shards(run.place), missing)
            found = {shard: tuple(failures_of(store, ShardUnit(run=run, indices=shard))) for shard in failed}
            shards.setdefault(run.name, {}).update(found)
    aggregate = () if observed.aggregated else tuple(failures_of(store, AggregateUnit(grid=manifest.grid)))
    return History(train=train, shards=shards, aggregate=aggregate)


def _touching(shards: Iterable[IndexRange], missing: set[int]) -> list[IndexRange]:
    return [shard for shard in shards if not missing.isdisjoint(shard)]
