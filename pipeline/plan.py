"""What to run, as a pure function of the grid and its files; and what became of it."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType

from jobs.files.failures import Failure, FailureClass
from jobs.specs.indices import IndexRange, missing_from, partition
from jobs.specs.runs import SHARD_STAGES, Manifest, Run, ShardStage
from jobs.specs.units import AggregateUnit, ShardUnit, TrainUnit, Unit, shards_by_run
from pipeline.retry import Retry, gave_up
from pipeline.state.files import Observation


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Units to run, in an order that respects their dependencies."""

    train: tuple[TrainUnit, ...]  # base classifiers without a checkpoint
    # Shards of missing images by stage; each needs its run's checkpoint
    shards: Mapping[ShardStage, tuple[ShardUnit, ...]]
    aggregate: AggregateUnit | None  # the last unit, which needs all others; None where the records file is current
    # Units that failed too often to be retried automatically, and the class of failure
    waiting: Mapping[str, FailureClass] = field(default_factory=dict)

    @property
    def units(self) -> tuple[Unit, ...]:
        """All units in order."""
        last = () if self.aggregate is None else (self.aggregate,)
        return (*self.train, *chain.from_iterable(self.shards.values()), *last)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The state of a plan's units after the launch ran or submitted them.

    A unit that fails affects only those that depend on it; others continue.
    """

    failures: tuple[Failure, ...] = ()  # one for each unit that failed, as the store has it
    skipped: tuple[Unit, ...] = ()  # units that were not started because a dependency failed
    num_queued: int = 0  # units submitted to a scheduler, which runs them after the launch returns
    jobs: tuple[str, ...] = ()  # the scheduler's ids for them
    left: tuple[Unit, ...] = ()  # units not submitted yet; the next launch submits them
    limit: str | None = None  # the limit that they would exceed; None if none was in the way
    problem: str | None = None  # why not everything could be submitted


def plan(
    manifest: Manifest,
    observed: Observation,
    *,
    num_shards: int,
    history: Mapping[str, Failure] = MappingProxyType({}),
    in_progress: AbstractSet[str] = frozenset(),
    retry: Retry | None = None,
    num_memories: int = 1,
) -> Plan:
    """The missing units of a grid, except those in progress and those that failed too often.

    Missing images are cut into shards of at most the number of images of their run divided by ``num_shards``, rounded
    up. ``history`` holds the last failure of each failed unit, by its name. Failures of class ``retry`` are retried
    however often they occurred. A unit that runs out of memory gets ``num_memories`` values, one after another.
    """

    def reason_to_wait(names: Iterable[str]) -> FailureClass | None:
        counts = sum((history[name].counts for name in names if name in history), Counter[FailureClass]())
        return gave_up(counts, retry, num_memories)

    waiting: dict[str, FailureClass] = {}
    train: dict[str, TrainUnit] = {}
    for key, spec in manifest.models.items():
        unit = TrainUnit(train=spec)
        if key in observed.trained or unit.name in in_progress:
            continue
        if failure_class := reason_to_wait([unit.name]):
            waiting[unit.name] = failure_class
        else:
            train[key] = unit
    shards: list[ShardUnit] = []
    queued, failed = shards_by_run(in_progress), shards_by_run(history)
    for run in manifest.runs:
        if f"train/{run.train.key}" not in waiting:
            max_size = -(-len(run.indices) // num_shards)
            missing = set(missing_from(run.indices, [*observed.finished(run), *queued.get(run.name, ())]))
            todo, given_up = _shards(run, missing, failed.get(run.name, ()), max_size, reason_to_wait)
            shards += todo
            waiting |= given_up
    aggregate = None if waiting else AggregateUnit(grid=manifest.grid)
    if not train and not shards:
        # After other units it has new files and may succeed; on the same files it would fail again.
        failure_class = reason_to_wait(["aggregate"])
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
    missing: set[int],
    failed: Iterable[IndexRange],
    max_size: int,
    reason_to_wait: Callable[[Iterable[str]], FailureClass | None],
) -> tuple[list[ShardUnit], dict[str, FailureClass]]:
    """The shards of missing images to run; and those that will not be retried, with the class of failure."""
    left, waiting = set(missing), dict[str, FailureClass]()
    named = {ShardUnit(run=run, indices=shard).name: shard for shard in failed}
    for names, indices in _images_by_failures(missing, named).items():
        if failure_class := reason_to_wait(names):
            left -= indices
            is_one = len(names) == 1 and len(indices) == len(named[names[0]])
            units = names if is_one else [unit.name for unit in _cut(run, indices, max_size)]
            waiting |= dict.fromkeys(units, failure_class)
    return _cut(run, left, max_size), waiting


def _images_by_failures(missing: set[int], failed: Mapping[str, IndexRange]) -> Mapping[tuple[str, ...], set[int]]:
    """Missing images, grouped by the failed shards that contained them: each launch may cut shards differently."""
    names: dict[int, tuple[str, ...]] = defaultdict(tuple)
    for name, shard in failed.items():
        for index in missing.intersection(shard):
            names[index] += (name,)
    found: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for index, those in names.items():
        found[those].add(index)
    return found


def _cut(run: Run, indices: Iterable[int], max_size: int) -> list[ShardUnit]:
    return [ShardUnit(run=run, indices=shard) for shard in partition(indices, max_size)]
