"""What to run: a pure function of what a grid wants and what exists."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import chain

from jobs.files.failures import FailureClass
from jobs.specs.indices import IndexRange, missing_from, partition
from jobs.specs.runs import SHARD_STAGES, Manifest, Run, ShardStage
from jobs.specs.units import AggregateUnit, ShardUnit, TrainUnit, Unit, shards_by_run
from pipeline.retry import Retry, gave_up
from pipeline.state.files import Observation
from pipeline.state.history import NO_HISTORY, History


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Units to run, in an order that respects what each needs.

    Attributes:
        train: Base classifiers without a checkpoint.
        shards: Shards of missing images by stage; each needs its run's checkpoint.
        aggregate: The last unit, which needs all others; None where the records file is current.
        waiting: Units that failed too often to be retried automatically, and the class of failure.
    """

    train: tuple[TrainUnit, ...]
    shards: Mapping[ShardStage, tuple[ShardUnit, ...]]
    aggregate: AggregateUnit | None
    waiting: Mapping[str, FailureClass] = field(default_factory=dict)

    @property
    def units(self) -> tuple[Unit, ...]:
        """All units in order."""
        last = () if self.aggregate is None else (self.aggregate,)
        return (*self.train, *chain.from_iterable(self.shards.values()), *last)


def plan(
    manifest: Manifest,
    observed: Observation,
    *,
    num_shards: int,
    history: History = NO_HISTORY,
    in_progress: AbstractSet[str] = frozenset(),
    retry: Retry | None = None,
    num_memories: int = 1,
) -> Plan:
    """The missing units of a grid.

    Args:
        manifest: What is wanted.
        observed: What exists.
        num_shards: The shard size is a run's number of images divided by this, rounded up; what is
            missing is cut into shards of at most that size.
        history: Earlier failures.
        in_progress: Names of units that a scheduler has queued or runs; they are left to it.
        retry: Failures to retry however often they occurred.
        num_memories: Values of memory that a unit gets one after the other when it runs out of it.
    """
    waiting: dict[str, FailureClass] = {}
    train: dict[str, TrainUnit] = {}
    for key, spec in manifest.models.items():
        unit = TrainUnit(train=spec)
        if key in observed.trained or unit.name in in_progress:
            continue
        failure_class = gave_up(history.train.get(key, ()), retry, num_memories)
        if failure_class:
            waiting[unit.name] = failure_class
        else:
            train[key] = unit
    shards: list[ShardUnit] = []
    queued = shards_by_run(in_progress)
    for run in manifest.runs:
        if f"train/{run.train.key}" not in waiting:
            shards += _shards(
                run, observed, num_shards, history, queued.get(run.name, []), retry, num_memories, waiting
            )
    aggregate = None if waiting else AggregateUnit(grid=manifest.grid)
    if not train and not shards:
        # It may succeed on new files; on the same ones it would fail again.
        failure_class = gave_up(history.aggregate, retry, num_memories)
        is_complete = observed.aggregated and observed.is_complete(manifest)
        if is_complete or "aggregate" in in_progress:
            aggregate = None
        elif failure_class and aggregate is not None:
            aggregate, waiting["aggregate"] = None, failure_class
    return Plan(
        train=tuple(train.values()),
        shards={stage: tuple(unit for unit in shards if unit.stage == stage) for stage in SHARD_STAGES},
        aggregate=aggregate,
        waiting=waiting,
    )


def _shards(
    run: Run,
    observed: Observation,
    num_shards: int,
    history: History,
    queued: list[IndexRange],
    retry: Retry | None,
    num_memories: int,
    waiting: dict[str, FailureClass],
) -> list[ShardUnit]:
    """The missing images, cut into shards; adds those that are not retried to ``waiting``."""
    missing = missing_from(run.indices, [*observed.finished(run), *queued])
    max_size = -(-len(run.indices) // num_shards)
    given_up: dict[FailureClass, list[int]] = defaultdict(list)
    failed = history.shards.get(run.name, {})
    for index in missing if failed else ():
        # Shards may be cut differently between two failures, so failures are counted per image.
        failures = [failure for shard, those in failed.items() if index in shard for failure in those]
        failure_class = gave_up(failures, retry, num_memories)
        if failure_class:
            given_up[failure_class].append(index)
    for failure_class, indices in given_up.items():
        waiting |= {ShardUnit(run=run, indices=shard).name: failure_class for shard in partition(indices, max_size)}
    left = set(missing).difference(*given_up.values())
    return [ShardUnit(run=run, indices=indices) for indices in partition(left, max_size)]
