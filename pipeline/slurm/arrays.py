"""How the units of a plan become arrays: a pure function.

With SLURM's aftercorr, task i of one array waits for task i of another. So a block is a train array and
arrays of shards of the same models in the same order: their task i holds one shard of each model of
train task i, and starts as soon as that task is done.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import accumulate, chain, zip_longest
from typing import TypeVar

from jobs.specs.runs import ShardStage
from jobs.specs.units import ShardUnit, TrainUnit, Unit
from pipeline.plan import Plan

T = TypeVar("T")
K = TypeVar("K")
Task = tuple[Unit, ...]
"""The units that one job runs, one after another."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Arrays that belong together."""

    train: tuple[Task, ...] = ()  # tasks of the train array; empty if the models are trained or in training
    # Arrays of shards by stage. With a train array, task i of each needs train task i and nothing else.
    sharded: Mapping[ShardStage, tuple[tuple[Task, ...], ...]] = field(default_factory=dict)
    # An earlier launch is training the models; the shards start when that has ended, successfully or not
    after_earlier_training: bool = False
    num_processes: int = 1  # SLURM tasks that train one model of the train array together

    @property
    def arrays(self) -> tuple[tuple[Task, ...], ...]:
        """All its arrays."""
        return (self.train, *chain.from_iterable(self.sharded.values()))

    @property
    def width(self) -> int:
        """The number of tasks of its longest array."""
        return max(map(len, self.arrays))

    @property
    def units(self) -> tuple[Unit, ...]:
        return tuple(unit for array in self.arrays for task in array for unit in task)

    def width_within(self, num_tasks: float) -> int:
        """The number of leading columns (task i of each array) that hold at most ``num_tasks`` tasks."""
        columns = (sum(len(array) > index for array in self.arrays) for index in range(self.width))
        return sum(total <= num_tasks for total in accumulate(columns))

    def split(self, width: int) -> tuple["Block", "Block"]:
        """The first ``width`` tasks of each array, and the rest."""
        first, rest = (
            Block(
                train=self.train[part],
                sharded={
                    stage: tuple(array[part] for array in arrays if array[part])
                    for stage, arrays in self.sharded.items()
                },
                after_earlier_training=self.after_earlier_training,
                num_processes=self.num_processes,
            )
            for part in (slice(width), slice(width, None))
        )
        return first, rest


@dataclass(frozen=True, kw_only=True)
class _Group:
    """A train task, and the tasks of shards that need it, by stage."""

    train: Task
    sharded: Mapping[ShardStage, list[Task]]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of tasks of each stage."""
        return tuple(map(len, self.sharded.values()))


def blocks(plan: Plan, *, units_per_job: int, max_array_size: int, in_training: AbstractSet[str]) -> list[Block]:
    """The arrays for everything in a plan except its aggregation.

    A job runs at most ``units_per_job`` units (models, or shards), and an array has at most ``max_array_size`` tasks. A
    model that several processes train has its own job. ``in_training`` holds the train keys that an earlier launch has
    in the queue.
    """
    shards = {stage: _grouped(units, lambda unit: unit.train.key) for stage, units in plan.shards.items()}
    result = []
    # All tasks of an array have the same number of processes.
    for num_processes, train in _grouped(plan.train, lambda unit: unit.num_processes).items():
        groups = [
            _Group(train=models, sharded={stage: _layers(models, own) for stage, own in shards.items()})
            # A model with several processes has its own job, or processes of the next model could join them.
            for models in _chunks(train, units_per_job if num_processes == 1 else 1)
        ]
        chunks = [chunk for part in _nested(groups) for chunk in _chunks(part, max_array_size)]
        result += [_block(chunk, num_processes) for chunk in chunks]
    for is_in_training in (True, False):
        for stage, by_model in shards.items():
            units = [unit for key, own in by_model.items() if (key in in_training) == is_in_training for unit in own]
            result += [
                Block(sharded={stage: (tasks,)}, after_earlier_training=is_in_training)
                for tasks in _chunks(list(_chunks(units, units_per_job)), max_array_size)
            ]
    return result


def _grouped(units: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    found: dict[K, list[T]] = defaultdict(list)
    for unit in units:
        found[key(unit)].append(unit)
    return found


def _layers(models: Sequence[TrainUnit], shards: dict[str, list[ShardUnit]]) -> list[Task]:
    """Tasks that hold one shard of each of these models; removes them from ``shards``."""
    layers = zip_longest(*(shards.pop(model.train.key, []) for model in models))
    return [tuple(unit for unit in layer if unit is not None) for layer in layers]


def _nested(groups: list[_Group]) -> Iterator[list[_Group]]:
    """Split groups into parts in which no group has more tasks of any stage than the one before it.

    Then every array of a part holds tasks of its first models.
    """
    part: list[_Group] = []
    for group in sorted(groups, key=lambda group: [-size for size in group.sizes]):
        if part and any(size > before for size, before in zip(group.sizes, part[-1].sizes, strict=True)):
            yield part
            part = []
        part.append(group)
    if part:
        yield part


def _block(groups: Sequence[_Group], num_processes: int) -> Block:
    return Block(
        train=tuple(group.train for group in groups),
        num_processes=num_processes,
        sharded={stage: _arrays([group.sharded[stage] for group in groups]) for stage in groups[0].sharded},
    )


def _arrays(tasks_by_group: Sequence[list[Task]]) -> tuple[tuple[Task, ...], ...]:
    layers = range(len(tasks_by_group[0]))
    return tuple(tuple(tasks[nr] for tasks in tasks_by_group if len(tasks) > nr) for nr in layers)


def _chunks(items: Sequence[T], size: int) -> Iterator[tuple[T, ...]]:
    for first in range(0, len(items), size):
        yield tuple(items[first : first + size])
