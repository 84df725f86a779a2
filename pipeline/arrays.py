"""How the units of a plan become arrays: a pure function.

SLURM's aftercorr ties task i of one array to task i of another. So a block is a train array and
certify arrays of the same models in the same order: certify task i holds one shard of each model of
train task i, and starts as soon as that one is done.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeVar

from jobs.units import CertifyUnit, Unit
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
        after_earlier_training: The models are in training by an earlier launch; certification is to
            start when that has ended, however it has.
    """

    train: tuple[Task, ...] = ()
    certify: tuple[tuple[Task, ...], ...] = ()
    after_earlier_training: bool = False

    @property
    def num_tasks(self) -> int:
        return len(self.train) + sum(map(len, self.certify))

    @property
    def width(self) -> int:
        """Tasks of its longest array."""
        return max([len(self.train), *map(len, self.certify)])

    @property
    def units(self) -> tuple[Unit, ...]:
        arrays = (self.train, *self.certify)
        return tuple(unit for array in arrays for task in array for unit in task)

    def split(self, width: int) -> tuple[Block, Block]:
        """The first ``width`` tasks of each array, and the rest."""
        first, rest = (
            Block(
                train=self.train[part],
                certify=tuple(array[part] for array in self.certify if array[part]),
                after_earlier_training=self.after_earlier_training,
            )
            for part in (slice(width), slice(width, None))
        )
        return first, rest


def blocks(plan: Plan, *, units_per_job: int, max_array_size: int, in_training: AbstractSet[str]) -> list[Block]:
    """The arrays of a plan's training and certification.

    Args:
        plan: What to run.
        units_per_job: At most so many units (models of a train task, shards of a certify task) run in one job.
        max_array_size: At most so many tasks make an array.
        in_training: Train keys that an earlier launch has in the queue.
    """
    shards: dict[str, list[CertifyUnit]] = defaultdict(list)
    for unit in plan.certify:
        shards[unit.run.train.key].append(unit)
    groups = []
    for models in _chunks(plan.train, units_per_job):
        layers = zip_longest(*(shards.pop(model.train.key, []) for model in models))
        groups.append((models, [tuple(unit for unit in layer if unit is not None) for layer in layers]))
    # The longest first: then the tasks of every certify array are those of the first so many models.
    groups.sort(key=lambda group: -len(group[1]))
    result = [_block(chunk) for chunk in _chunks(groups, max_array_size)]
    for is_in_training in (True, False):
        units = [unit for key, own in shards.items() if (key in in_training) == is_in_training for unit in own]
        arrays = _chunks(list(_chunks(units, units_per_job)), max_array_size)
        result += [Block(certify=(tasks,), after_earlier_training=is_in_training) for tasks in arrays]
    return result


def _block(groups: Sequence[tuple[Task, list[Task]]]) -> Block:
    num_layers = len(groups[0][1])
    layers = (tuple(tasks[nr] for _, tasks in groups if len(tasks) > nr) for nr in range(num_layers))
    return Block(train=tuple(models for models, _ in groups), certify=tuple(layers))


def _chunks(items: Sequence[T], size: int) -> Iterator[tuple[T, ...]]:
    for first in range(0, len(items), size):
        yield tuple(items[first : first + size])
