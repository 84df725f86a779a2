"""What is done and what failed, according to the files. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jobs.aggregate import look_at_joined
from jobs.atomic import Damage, damage_of
from jobs.files.failures import Failure, last_failures
from jobs.files.store import Store
from jobs.specs.indices import IndexRange, missing_from, parse_shard_stem
from jobs.specs.runs import SHARD_STAGES, Manifest, Place, Run
from pipeline.state import ledger


@dataclass(frozen=True, kw_only=True)
class Observation:
    """The state of a grid's files."""

    trained: frozenset[str]  # train keys that have a checkpoint, or that the launch composes
    shards: Mapping[Place, tuple[IndexRange, ...]]  # finished index ranges by where they belong
    aggregated: bool  # whether the grid's records files are there and made for just this grid
    damaged: tuple[Damage, ...] = ()  # files that are there and cannot be used; none of them counts as done

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
    """Look at the files of a grid: one or two folder listings per run, and the ends of files; reads joined records."""
    shards = {run.place: store.shards(run.place) for run in manifest.runs}
    is_aggregated, damaged = look_at_joined(manifest, store)
    damaged += [damage for key in manifest.models for damage in store.model_damages(key)]
    damaged += [damage for _, damages in shards.values() for damage in damages]
    damaged += damage_of(store.manifest_path(manifest.grid)) + ledger.damages(store, manifest.grid)
    return Observation(
        trained=frozenset(key for key, spec in manifest.models.items() if spec.members or store.is_trained(key)),
        shards={place: tuple(finished) for place, (finished, _) in shards.items()},
        aggregated=is_aggregated,
        damaged=tuple(damaged),
    )


def pending_units(manifest: Manifest, observed: Observation) -> Callable[[str], bool]:
    """Says of a unit's name whether the grid has such a unit and it is not done."""
    missing: dict[str, set[int]] = {}
    for run in manifest.runs:
        missing.setdefault(run.name, set()).update(observed.missing(run))
    untrained = manifest.models.keys() - observed.trained

    def is_pending(name: str) -> bool:
        stage, _, rest = name.partition("/")
        if stage == "train":
            return rest in untrained
        if stage in SHARD_STAGES:
            run_name, _, stem = name.rpartition("/")
            return not missing.get(run_name, set()).isdisjoint(parse_shard_stem(stem))
        return not observed.aggregated

    return is_pending


def read_history(
    manifest: Manifest, observed: Observation, store: Store, is_pending: Callable[[str], bool]
) -> dict[str, Failure]:
    """The last failure of each unit that is not done, by its name: a listing per unfinished model, a file per unit."""
    unfinished = manifest.models.keys() - observed.trained
    unfinished |= {run.train.key for run in manifest.runs if observed.missing(run)}
    folders = [store.failures_dir(key) for key in manifest.models if key in unfinished]
    folders += [] if observed.aggregated else [store.grid_failures_dir(manifest.grid)]
    return {name: failure for folder in folders for name, failure in last_failures(folder, is_pending).items()}
