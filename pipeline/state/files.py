"""What is done and what failed, as far as the files show. Changes nothing."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from jobs.aggregate import look_at_joined
from jobs.atomic import Damage, damage_of, file_sha256
from jobs.files.failures import Failure, last_failures
from jobs.files.store import Store
from jobs.specs.indices import IndexRange, missing_from, parse_shard_stem
from jobs.specs.runs import SHARD_STAGES, Manifest, Place, Run
from jobs.specs.train import TrainSpec
from pipeline.state import ledger


@dataclass(frozen=True, kw_only=True)
class Observation:
    """The state of a grid's files."""

    trained: frozenset[str]  # train keys that have a checkpoint, or that the launch composes
    shards: Mapping[Place, tuple[IndexRange, ...]]  # finished index ranges of each run
    aggregated: bool  # whether the grid's joined records exist and were made for exactly this grid
    damaged: tuple[Damage, ...] = ()  # files that cannot be used; none of them counts as done

    def finished(self, run: Run) -> tuple[IndexRange, ...]:
        """The finished index ranges of a run."""
        return self.shards[run.place]

    def missing(self, run: Run) -> list[int]:
        """The images of a run that are not done."""
        return missing_from(run.indices, self.finished(run))

    def num_images(self, runs: Collection[Run]) -> tuple[int, int]:
        """The images of some runs that are done, and all of them."""
        total = sum(len(run.indices) for run in runs)
        return total - sum(len(self.missing(run)) for run in runs), total

    def is_complete(self, manifest: Manifest) -> bool:
        """Whether all models are trained and all images of all runs are done."""
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


def source_damages(spec: TrainSpec, store: Store) -> list[Damage]:
    """The copied weight files of a model whose content does not have the hash that names them; reads them."""
    paths = {store.source_path(sha256): sha256 for sha256 in spec.source_hashes}
    wrong = [path for path, sha256 in paths.items() if path.exists() and file_sha256(path) != sha256]
    return [Damage(path, "damaged: its hash differs from its name") for path in wrong]


def pending_units(manifest: Manifest, observed: Observation) -> Callable[[str], bool]:
    """Returns a function of a unit's name: whether the unit belongs to the grid and is not done."""
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
    """The last failure of each unit that is not done, by its name. Lists a folder per unfinished model."""
    unfinished = manifest.models.keys() - observed.trained
    unfinished |= {run.train.key for run in manifest.runs if observed.missing(run)}
    folders = [store.failures_dir(key) for key in manifest.models if key in unfinished]
    folders += [] if observed.aggregated else [store.grid_failures_dir(manifest.grid)]
    return {name: failure for folder in folders for name, failure in last_failures(folder, is_pending).items()}
