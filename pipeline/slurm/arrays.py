"""How the units of a plan become arrays: a pure function.

With SLURM's aftercorr, task i of one array waits for task i of another. So a block is a train array and
arrays of shards of the same models in the same order: their task i holds one shard of each model of
train task i, and starts as soon as that task is done.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain, zip_longest
from typing import TypeVar

from jobs.specs.runs import ShardStage
from jobs.specs.units import Unit
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

        def part(tasks: slice) -> Block:
            items = self.sharded.items()
            sharded = {stage: tuple(array[tasks] for array in arrays if array[tasks]) for stage, arrays in items}
            return replace(self, train=self.train[tasks], sharded=sharded)

        return part(slice(width)), part(slice(width, None))


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
        columns = []
        # A model with several processes has its own job, or processes of the next model could join them.
        for models in _chunks(train, units_per_job if num_processes == 1 else 1):
            sharded = {
                stage: tuple((task,) for task in _transposed(by_model.pop(model.train.key, []) for model in models))
                for stage, by_model in shards.items()
            }
            columns.append(Block(train=(models,), sharded=sharded, num_processes=num_processes))
        result += [_joined(chunk) for part in _nested(columns) for chunk in _chunks(part, max_array_size)]
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


def _transposed(rows: Iterable[Sequence[T]]) -> tuple[tuple[T, ...], ...]:
    """The first items of all rows, then the second items, and so on; rows may have different lengths."""
    return tuple(tuple(item for item in column if item is not None) for column in zip_longest(*rows))


def _nested(columns: list[Block]) -> Iterator[list[Block]]:
    """Split blocks of one task per array into parts in which none has more arrays of any stage than the one before it.

    Then every array of a part holds tasks of its first models.
    """

    def sizes(column: Block) -> list[int]:
        return [len(arrays) for arrays in column.sharded.values()]

    part: list[Block] = []
    for column in sorted(columns, key=sizes, reverse=True):
        if part and any(size > before for size, before in zip(sizes(column), sizes(part[-1]), strict=True)):
            yield part
            part = []
        part.append(column)
    if part:
        yield part


def _joined(columns: Sequence[Block]) -> Block:
    """Blocks of one task per array as one block."""
    first = columns[0]
    rows = {stage: [[task for (task,) in column.sharded[stage]] for column in columns] for stage in first.sharded}
    sharded = {stage: _transposed(own) for stage, own in rows.items()}
    return replace(first, train=tuple(column.train[0] for column in columns), sharded=sharded)


def _chunks(items: Sequence[T], size: int) -> Iterator[tuple[T, ...]]:
    for first in range(0, len(items), size):
        yield tuple(items[first : first + size])
