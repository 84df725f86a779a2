"""What is done, according to the files: one or two folder listings per run; only records.parquet is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jobs.aggregate import is_aggregated
from jobs.files.store import Store
from jobs.specs.indices import IndexRange, missing_from
from jobs.specs.runs import Manifest, Place, Run


@dataclass(frozen=True, kw_only=True)
class Observation:
    """The state of a grid's files.

    Attributes:
        trained: Train keys that have a checkpoint.
        shards: Finished index ranges by where they belong.
        aggregated: Whether the grid's records files are there and made for just this grid.
    """

    trained: frozenset[str]
    shards: Mapping[Place, tuple[IndexRange, ...]]
    aggregated: bool

    def finished(self, run: Run) -> tuple[IndexRange, ...]:
        """The finished index ranges of a run."""
        return self.shards[run.place]

    def missing(self, run: Run) -> list[int]:
        """The images of a run that are not done."""
        return missing_from(run.indices, self.finished(run))

    def is_complete(self, manifest: Manifest) -> bool:
        """Whether every model is trained and every image of every run done."""
        return all(run.train.key in self.trained and not self.missing(run) for run in manifest.runs)


def observe(manifest: Manifest, store: Store) -> Observation:
    """Look at the files of a grid; changes nothing."""
    return Observation(
        trained=frozenset(key for key in manifest.models if store.is_trained(key)),
        shards={run.place: tuple(store.finished_shards(run.place)) for run in manifest.runs},
        aggregated=is_aggregated(manifest, store),
    )
