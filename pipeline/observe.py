"""What is done, as the files say: one or two folder listings for each run; of files only records.parquet is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jobs.aggregate import is_current
from jobs.indices import IndexRange, missing_from
from jobs.manifest import Manifest
from jobs.store import Store

RunKey = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Observation:
    """The state of a grid's files.

    Attributes:
        trained: Train keys that have a checkpoint.
        certified: Finished index ranges by (train key, certify key).
        aggregated: Whether the grid's records file is there and made for just this grid.
    """

    trained: frozenset[str]
    certified: Mapping[RunKey, tuple[IndexRange, ...]]
    aggregated: bool

    def is_certified(self, manifest: Manifest) -> bool:
        """Whether every model is trained and every image certified."""
        return all(
            run.train.key in self.trained
            and not missing_from(run.indices, self.certified[run.train.key, run.certify.key])
            for run in manifest.runs
        )


def observe(manifest: Manifest, store: Store) -> Observation:
    """Look at the files of a grid; changes nothing."""
    return Observation(
        trained=frozenset(key for key in {run.train.key for run in manifest.runs} if store.is_trained(key)),
        certified={
            (run.train.key, run.certify.key): tuple(store.finished_shards(run.train.key, run.certify.key))
            for run in manifest.runs
        },
        aggregated=is_current(store.records_path(manifest.grid), manifest),
    )
