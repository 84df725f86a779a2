"""What failed of the units that are not done, as their records say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from jobs.failures import Failure, failures_of
from jobs.indices import IndexRange, missing_from
from jobs.manifest import Manifest
from jobs.store import Store
from jobs.units import AggregateUnit, CertifyUnit, TrainUnit
from pipeline.observe import Observation, RunKey


@dataclass(frozen=True, kw_only=True)
class History:
    """Failures, the oldest first, of units that are not done.

    Attributes:
        train: By train key.
        certify: By (train key, certify key) and shard; shards that still lack an image.
        aggregate: Of the grid's aggregation, unless its file is current.
    """

    train: Mapping[str, tuple[Failure, ...]] = field(default_factory=dict)
    certify: Mapping[RunKey, Mapping[IndexRange, tuple[Failure, ...]]] = field(default_factory=dict)
    aggregate: tuple[Failure, ...] = ()

    def __iter__(self) -> Iterator[tuple[Failure, ...]]:
        """The failures of each unit that has any."""
        yield from (those for those in self.train.values() if those)
        yield from (those for shards in self.certify.values() for those in shards.values())
        yield from (those for those in (self.aggregate,) if those)

    @property
    def last(self) -> dict[str, Failure]:
        """The last failure of each unit, by its name."""
        return {failures[-1].unit: failures[-1] for failures in self}


NO_HISTORY = History()


def read_history(manifest: Manifest, observed: Observation, store: Store) -> History:
    """The failures of what is not done: a listing for each unfinished run, and the records it names."""
    train = {
        run.train.key: tuple(failures_of(store, TrainUnit(train=run.train)))
        for run in manifest.runs
        if run.train.key not in observed.trained
    }
    certify: dict[RunKey, dict[IndexRange, tuple[Failure, ...]]] = {}
    for run in manifest.runs:
        keys = run.train.key, run.certify.key
        missing = set(missing_from(run.indices, observed.certified[keys]))
        if missing:
            certify[keys] = {
                shard: tuple(failures_of(store, CertifyUnit(run=run, indices=shard)))
                for shard in _touching(store.failed_shards(*keys), missing)
            }
    aggregate = () if observed.aggregated else tuple(failures_of(store, AggregateUnit(grid=manifest.grid)))
    return History(train=train, certify=certify, aggregate=aggregate)


def _touching(shards: Iterable[IndexRange], missing: set[int]) -> list[IndexRange]:
    return [shard for shard in shards if not missing.isdisjoint(shard)]
