"""What is to be done: a pure function of what a grid wants and what is there."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.indices import IndexRange, missing_from, partition
from jobs.manifest import Manifest, ShardedRun
from jobs.units import AggregateUnit, AttackUnit, CertifyUnit, TrainUnit, Unit
from pipeline.observe import Observation


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Units to run, in an order that respects what each needs.

    Attributes:
        train: Base classifiers without a checkpoint.
        certify: Shards of missing images; each needs its run's checkpoint.
        attack: Shards of images that are missing from attacks, likewise.
        aggregate: The last unit, which needs all others; None where the records file is current.
    """

    train: tuple[TrainUnit, ...]
    certify: tuple[CertifyUnit, ...]
    attack: tuple[AttackUnit, ...] = ()
    aggregate: AggregateUnit | None

    @property
    def units(self) -> tuple[Unit, ...]:
        """All units in order."""
        last = () if self.aggregate is None else (self.aggregate,)
        return (*self.train, *self.certify, *self.attack, *last)


def plan(manifest: Manifest, observed: Observation, *, num_shards: int) -> Plan:
    """What is missing of a grid.

    Args:
        manifest: What is wanted.
        observed: What is there.
        num_shards: The shard size is a run's number of images divided by this, rounded up; what is
            missing is cut into shards of at most that size.
    """
    train = tuple({run.train.key: TrainUnit(train=run.train) for run in manifest.runs}.values())
    missing_train = tuple(unit for unit in train if unit.train.key not in observed.trained)
    certify = tuple(
        CertifyUnit(run=run, indices=indices)
        for run in manifest.runs
        for indices in _missing_shards(run, observed, num_shards)
    )
    attack = tuple(
        AttackUnit(run=run, indices=indices)
        for run in manifest.attacks
        for indices in _missing_shards(run, observed, num_shards)
    )
    is_complete = observed.aggregated and not (missing_train or certify or attack)
    return Plan(
        train=missing_train,
        certify=certify,
        attack=attack,
        aggregate=None if is_complete else AggregateUnit(grid=manifest.grid),
    )


def _missing_shards(run: ShardedRun, observed: Observation, num_shards: int) -> list[IndexRange]:
    max_size = -(-len(run.indices) // num_shards)
    return partition(missing_from(run.indices, observed.finished(run)), max_size)
