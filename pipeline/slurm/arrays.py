"""How the units of a plan become arrays: a pure function.

SLURM's aftercorr ties task i of one array to task i of another. So a block is a train array and
certify and attack arrays of the same models in the same order: their task i holds one shard of each
model of train task i, and starts as soon as that one is done.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from typing import TypeVar

from jobs.specs.runs import ShardStage
from jobs.specs.units import ShardUnit, TrainUnit, Unit
from pipeline.plan import Plan

T = TypeVar("T")
Task = tuple[Unit, ...]
"""The units that one job runs, one after the other."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Arrays that belong together.

    Attributes:
        train: Tasks of the train array; none where the models are trained or in training.
        certify: Arrays of certify tasks. Beside a train array, task i of each needs train task i
            and nothing else.
        attack: Arrays of attack tasks, likewise.
        after_earlier_training: The models are in training by an earlier launch; the rest is to
            start when that has ended, however it has.
        num_processes: Tasks of SLURM that train one model of the train array together.
    """

    train: tuple[Task, ...] = ()
    certify: tuple[tuple[Task, ...], ...] = ()
    attack: tuple[tuple[Task, ...], ...] = ()
    after_earlier_training: bool = False
    num_processes: int = 1

    @property
    def sharded(self) -> dict[ShardStage, tuple[tuple[Task, ...], ...]]:
        """The arrays beside the train array, by stage."""
        return {"certify": self.certify, "attack": self.attack}

    @property
    def arrays(self) -> tuple[tuple[Task, ...], ...]:
        """All its arrays."""
        return (self.train, *self.certify, *self.attack)

    @property
    def num_tasks(self) -> int:
        return sum(map(len, self.arrays))

    @property
    def width(self) -> int:
        """Tasks of its longest array."""
        return max(map(len, self.arrays))

    @property
    def units(self) -> tuple[Unit, ...]:
        return tuple(unit for array in self.arrays for task in array for unit in task)

    def width_within(self, num_tasks: int) -> int:
        """How many of its columns (task i of each array) have at most so many tasks in all."""
        columns = (sum(len(array) > index for array in self.arrays) for index in range(self.width))
        return sum(total <= num_tasks for total in accumulate(columns))

    def split(self, width: int) -> tuple[Block, Block]:
        """The first ``width`` tasks of each array, and the rest."""
        first, rest = (
            Block(
                train=self.train[part],
                certify=tuple(array[part] for array in self.certify if array[part]),
                attack=tuple(array[part] for array in self.attack if array[part]),
                after_earlier_training=self.after_earlier_training,
                num_processes=self.num_processes,
            )
            for part in (slice(width), slice(width, None))
        )
        return first, rest


@dataclass(frozen=True, kw_only=True)
class _Group:
    """A train task, and the tasks of shards that need it."""

    train: Task
    certify: list[Task]
    attack: list[Task]


def blocks(plan: Plan, *, units_per_job: int, max_array_size: int, in_training: AbstractSet[str]) -> list[Block]:
    """The arrays of all of a plan but its aggregation.

    Args:
        plan: What to run.
        units_per_job: At most so many units (models of a train task, shards of any other) run in one job;
            a model that several processes train has one to itself.
        max_array_size: At most so many tasks make an array.
        in_training: Train keys that an earlier launch has in the queue.
    """
    certify, attack = _by_model(plan.certify), _by_model(plan.attack)
    result = []
    for num_processes, train in _by_num_processes(plan.train).items():
        groups = [
            _Group(train=models, certify=_layers(models, certify), attack=_layers(models, attack))
            # Processes that meet have a job to themselves, or those of its next model could meet them.
            for models in _chunks(train, units_per_job if num_processes == 1 else 1)
        ]
        chunks = [chunk for part in _nested(groups) for chunk in _chunks(part, max_array_size)]
        result += [_block(chunk, num_processes) for chunk in chunks]
    for is_in_training in (True, False):

        def alone(shards: dict[str, list[ShardUnit]], *, wanted: bool = is_in_training) -> Iterator[tuple[Task, ...]]:
            units = [unit for key, own in shards.items() if (key in in_training) == wanted for unit in own]
            return _chunks(list(_chunks(units, units_per_job)), max_array_size)

        result += [Block(certify=(tasks,), after_earlier_training=is_in_training) for tasks in alone(certify)]
        result += [Block(attack=(tasks,), after_earlier_training=is_in_training) for tasks in alone(attack)]
    return result


def _by_num_processes(units: Sequence[TrainUnit]) -> dict[int, list[TrainUnit]]:
    """The tasks of an array are all of the same size."""
    found: dict[int, list[TrainUnit]] = defaultdict(list)
    for unit in units:
        found[unit.num_processes].append(unit)
    return found


def _by_model(units: Sequence[ShardUnit]) -> dict[str, list[ShardUnit]]:
    shards: dict[str, list[ShardUnit]] = defaultdict(list)
    for unit in units:
        shards[unit.run.train.key].append(unit)
    return shards


def _layers(models: Sequence[TrainUnit], shards: dict[str, list[ShardUnit]]) -> list[Task]:
    """Tasks of one shard of each of some models; takes the shards."""
    layers = zip_longest(*(shards.pop(model.train.key, []) for model in models))
    return [tuple(unit for unit in layer if unit is not None) for layer in layers]


def _nested(groups: list[_Group]) -> Iterator[list[_Group]]:
    """Groups, in parts in which none has more certify or attack tasks than the one before it.

    Then the tasks of every such array are those of the first so many models.
    """
    part: list[_Group] = []
    for group in sorted(groups, key=lambda group: (-len(group.certify), -len(group.attack))):
        if part and len(group.attack) > len(part[-1].attack):
            yield part
            part = []
        part.append(group)
    if part:
        yield part


def _block(groups: Sequence[_Group], num_processes: int) -> Block:
    return Block(
        train=tuple(group.train for group in groups),
        num_processes=num_processes,
        certify=_arrays([group.certify for group in groups]),
        attack=_arrays([group.attack for group in groups]),
    )


def _arrays(tasks_by_group: Sequence[list[Task]]) -> tuple[tuple[Task, ...], ...]:
    layers = range(len(tasks_by_group[0]))
    return tuple(tuple(tasks[nr] for tasks in tasks_by_group if len(tasks) > nr) for nr in layers)


def _chunks(items: Sequence[T], size: int) -> Iterator[tuple[T, ...]]:
    for first in range(0, len(items), size):
        yield tuple(items[first : first + size])
