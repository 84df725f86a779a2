"""The present state of a grid and of each of its units, from files, queue and failures. Changes nothing."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jobs.files.failures import Failure
from jobs.files.store import Store
from jobs.specs.indices import IndexRange, partition
from jobs.specs.runs import Manifest, Run, ShardStage
from jobs.specs.units import AggregateUnit, ShardUnit, TrainUnit, Unit, shards_by_run
from pipeline.state.activity import Activity, read_activity, read_queue, slurm_activity
from pipeline.state.commands import SchedulerError
from pipeline.state.files import Observation, observe, pending_units, read_history
from pipeline.state.postmortem import find_deaths, submission_times

State = Literal["done", "running", "queued", "failed", "missing", "unknown"]
STATES: tuple[State, ...] = ("done", "running", "queued", "failed", "missing", "unknown")
# The state shown for a model whose units are in several states.
_FOREMOST: tuple[State, ...] = ("running", "queued", "unknown", "failed", "missing", "done")


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The state of a grid."""

    activity: Activity  # what is in progress
    observed: Observation  # what is done
    history: Mapping[str, Failure]  # the last recorded failure of each unit that is not done and failed, by its name
    deaths: Sequence[Failure] = ()  # failures of units that ended without a record


def survey(manifest: Manifest, store: Store, activity: Activity) -> Survey:
    """Look at the files of a grid.

    ``activity`` must have been read *before*, so that a unit that ends in between counts as done and not as lost.
    """
    observed = observe(manifest, store)
    is_pending = pending_units(manifest, observed)
    history, deaths = read_history(manifest, observed, store, is_pending), list[Failure]()
    if activity.problem is None and not (observed.aggregated and observed.is_complete(manifest)):
        deaths, alive = find_deaths(
            manifest,
            store,
            is_pending=lambda name: name not in activity.in_progress and is_pending(name),
            recorded=history,
        )
        activity = replace(activity, running=activity.running | alive)
    return Survey(activity=activity, observed=observed, history=history, deaths=deaths)


@dataclass(frozen=True, kw_only=True)
class UnitState:
    """A unit, its state, and its failure if it failed."""

    unit: Unit
    state: State
    failure: Failure | None = None


@dataclass(frozen=True, kw_only=True)
class RunStates:
    """The states of the shards of one run."""

    run: Run
    shards: tuple[UnitState, ...]

    @property
    def state(self) -> State:
        """One state for all shards."""
        states = {shard.state for shard in self.shards}
        return next(state for state in _FOREMOST if state in states)


@dataclass(frozen=True, kw_only=True)
class Status:
    """The state of a whole grid."""

    manifest: Manifest
    store: Store
    found: Survey
    models: tuple[UnitState, ...]  # the training of each
    runs: tuple[RunStates, ...]  # first all certifications, then all attacks
    aggregate: UnitState

    def of(self, stage: ShardStage) -> list[RunStates]:
        """The certifications, or the attacks."""
        return [item for item in self.runs if item.run.stage == stage]

    def num_images(self, stage: ShardStage) -> tuple[int, int]:
        """The images of a stage that are done, and all of them."""
        return self.found.observed.num_images(self.manifest.of(stage))

    @property
    def units(self) -> tuple[UnitState, ...]:
        """Every unit once: models, shards, aggregation."""
        return (*self.models, *(shard for item in self.runs for shard in item.shards), self.aggregate)


def look(manifest: Manifest, store: Store) -> Status:
    """The present state of a grid; one squeue call per cluster, or none if nothing was ever submitted to SLURM."""
    found = survey(manifest, store, _activity(store, manifest.grid))
    activity, observed = found.activity, found.observed
    submitted_at = submission_times(store, manifest.grid) if activity.problem else {}
    failures = {**found.history, **{death.unit: death for death in found.deaths}}

    def state_of(unit: Unit, *, is_done: bool = False) -> UnitState:
        if is_done:
            return UnitState(unit=unit, state="done")
        if unit.name in activity.in_progress:
            return UnitState(unit=unit, state="running" if unit.name in activity.running else "queued")
        failure, since = failures.get(unit.name), submitted_at.get(unit.name)
        if since is not None and (failure is None or failure.time < since):
            return UnitState(unit=unit, state="unknown")
        return UnitState(unit=unit, state="missing" if failure is None else "failed", failure=failure)

    named = shards_by_run([*activity.in_progress, *submitted_at, *failures])
    is_done = observed.aggregated and observed.is_complete(manifest)
    return Status(
        manifest=manifest,
        store=store,
        found=found,
        models=tuple(
            state_of(TrainUnit(train=spec), is_done=key in observed.trained) for key, spec in manifest.models.items()
        ),
        runs=tuple(
            RunStates(run=run, shards=tuple(_shards(run, observed, state_of, named.get(run.name, ()))))
            for run in manifest.runs
        ),
        aggregate=state_of(AggregateUnit(grid=manifest.grid), is_done=is_done),
    )


def _activity(store: Store, grid: str) -> Activity:
    """Units in progress: here or on SLURM. Read before the files (see ``survey``)."""
    here = read_activity(store, grid)
    if here.in_progress or not store.has_slurm_launches():
        return here
    try:
        return slurm_activity(store, grid, read_queue(store))
    except SchedulerError as error:
        return Activity(problem=str(error))


def _shards(
    run: Run, observed: Observation, state_of: Callable[[Unit], UnitState], named: Iterable[IndexRange]
) -> Iterator[UnitState]:
    """Shards known from files, queue and failures; images in none of them are missing."""
    wanted = frozenset(run.indices)
    for indices in observed.finished(run):
        if not wanted.isdisjoint(indices):
            yield UnitState(unit=ShardUnit(run=run, indices=indices), state="done")
    missing = set(observed.missing(run))
    for indices in named:
        if not missing.isdisjoint(indices):
            missing.difference_update(indices)
            yield state_of(ShardUnit(run=run, indices=indices))
    for indices in partition(missing, len(run.indices)):
        yield UnitState(unit=ShardUnit(run=run, indices=indices), state="missing")
