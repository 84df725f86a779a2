"""What is done, as the files say: one or two folder listings for each run; of files only records.parquet is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jobs.aggregate import is_aggregated
from jobs.files.store import Store
from jobs.specs.indices import IndexRange, missing_from
from jobs.specs.runs import Manifest, ShardedRun

RunKey = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Observation:
    """The state of a grid's files.

    Attributes:
        trained: Train keys that have a checkpoint.
        certified: Finished index ranges by (train key, certify key).
        aggregated: Whether the grid's records files are there and made for just this grid.
        attacked: Finished index ranges by (train key, attack key).
    """

    trained: frozenset[str]
    certified: Mapping[RunKey, tuple[IndexRange, ...]]
    aggregated: bool
    attacked: Mapping[RunKey, tuple[IndexRange, ...]] = field(default_factory=dict)

    def finished(self, run: ShardedRun) -> tuple[IndexRange, ...]:
        """The finished index ranges of a certification or an attack."""
        return (self.certified if run.stage == "certify" else self.attacked)[run.train.key, run.key]

    def missing(self, run: ShardedRun) -> list[int]:
        """The images of a certification or an attack that are not done."""
        return missing_from(run.indices, self.finished(run))

    def is_complete(self, manifest: Manifest) -> bool:
        """Whether every model is trained, every image certified and every attack done."""
        return all(run.train.key in self.trained and not self.missing(run) for run in manifest.sharded)


def observe(manifest: Manifest, store: Store) -> Observation:
    """Look at the files of a grid; changes nothing."""
    return Observation(
        trained=frozenset(key for key in manifest.train_keys if store.is_trained(key)),
        certified=_finished(manifest.runs, store),
        attacked=_finished(manifest.attacks, store),
        aggregated=is_aggregated(manifest, store),
    )


def _finished(runs: Sequence[ShardedRun], store: Store) -> dict[RunKey, tuple[IndexRange, ...]]:
    return {(run.train.key, run.key): tuple(store.finished_shards(run.train.key, run.key, run.stage)) for run in runs}
