"""The state of every unit of a grid, from a survey: done, running, queued, failed, missing, unknown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from jobs.files.failures import Failure
from jobs.specs.indices import IndexRange, partition
from jobs.specs.runs import Manifest, Run, ShardStage
from jobs.specs.units import AggregateUnit, ShardUnit, TrainUnit, Unit, shards_by_run
from pipeline.state.survey import Survey

State = Literal["done", "running", "queued", "failed", "missing", "unknown"]
STATES: tuple[State, ...] = ("done", "running", "queued", "failed", "missing", "unknown")
_ShardsByRun = Mapping[str, list[IndexRange]]
# The state shown for a model whose units are in several states.
_FOREMOST: tuple[State, ...] = ("running", "queued", "unknown", "failed", "missing", "done")


@dataclass(frozen=True, kw_only=True)
class UnitState:
    """A unit and its state; the failure of one that failed."""

    unit: Unit
    state: State
    failure: Failure | None = None


@dataclass(frozen=True, kw_only=True)
class RunStates:
    """What is done to one model: its training, the shards of its certification or attack, and images done."""

    run: Run
    train: UnitState
    shards: tuple[UnitState, ...]
    num_done: int

    @property
    def state(self) -> State:
        """One state for all shards."""
        states = {shard.state for shard in self.shards}
        return next(state for state in _FOREMOST if state in states)


@dataclass(frozen=True, kw_only=True)
class GridStates:
    """A whole grid: all certifications, then all attacks."""

    runs: tuple[RunStates, ...]
    aggregate: UnitState

    def of(self, stage: ShardStage) -> list[RunStates]:
        """Its certifications, or its attacks."""
        return [item for item in self.runs if item.run.stage == stage]

    @property
    def models(self) -> list[UnitState]:
        """Every training once."""
        return [*{item.run.train.key: item.train for item in self.runs}.values()]

    @property
    def units(self) -> Iterator[UnitState]:
        """Every unit once: models, shards, aggregation."""
        yield from self.models
        for item in self.runs:
            yield from item.shards
        yield self.aggregate


def grid_states(manifest: Manifest, found: Survey, submitted_at: Mapping[str, float]) -> GridStates:
    """The state of every unit.

    Args:
        manifest: The grid.
        found: What is done, in progress, and failed.
        submitted_at: When each unit was last submitted to SLURM; used when SLURM does not answer.
    """
    failures = {**found.history.last, **{death.unit: death.as_failure() for death in found.deaths}}

    def state_of(unit: Unit) -> UnitState:
        way, failure = found.activity.way_of(unit.name), failures.get(unit.name)
        if way is not None:
            return UnitState(unit=unit, state=way)
        since = submitted_at.get(unit.name)
        if found.activity.problem and since is not None and (failure is None or failure.time < since):
            return UnitState(unit=unit, state="unknown")
        return UnitState(unit=unit, state="missing" if failure is None else "failed", failure=failure)

    named = shards_by_run([*found.activity.in_progress, *(submitted_at if found.activity.problem else ())])
    dead = shards_by_run(death.unit for death in found.deaths)
    runs = []
    for run in manifest.runs:
        train = TrainUnit(train=run.train)
        is_trained = run.train.key in found.observed.trained
        runs.append(
            RunStates(
                run=run,
                train=UnitState(unit=train, state="done") if is_trained else state_of(train),
                shards=tuple(_shards(run, found, state_of, named, dead)),
                num_done=len(run.indices) - len(found.observed.missing(run)),
            )
        )
    aggregate = AggregateUnit(grid=manifest.grid)
    is_done = found.observed.aggregated and found.observed.is_complete(manifest)
    return GridStates(
        runs=tuple(runs), aggregate=UnitState(unit=aggregate, state="done") if is_done else state_of(aggregate)
    )


def _shards(
    run: Run, found: Survey, state_of: Callable[[Unit], UnitState], named: _ShardsByRun, dead: _ShardsByRun
) -> Iterator[UnitState]:
    """Shards named by files, queue and failures; images in none of them are missing."""
    for indices in found.observed.finished(run):
        if any(index in run.indices for index in indices):
            yield UnitState(unit=ShardUnit(run=run, indices=indices), state="done")
    missing = set(found.observed.missing(run))
    shards = [*named.get(run.name, ()), *found.history.shards.get(run.name, ()), *dead.get(run.name, ())]
    for indices in shards:
        if not missing.isdisjoint(indices):
            missing.difference_update(indices)
            yield state_of(ShardUnit(run=run, indices=indices))
    for indices in partition(missing, len(run.indices)):
        yield UnitState(unit=ShardUnit(run=run, indices=indices), state="missing")
