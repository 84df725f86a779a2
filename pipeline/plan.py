"""What is to be done: a pure function of what a grid wants and what is there."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.indices import missing_from, partition
from jobs.manifest import Manifest, Run
from jobs.units import AggregateUnit, CertifyUnit, TrainUnit, Unit
from pipeline.observe import Observation


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Units to run, in an order that respects what each needs.

    Attributes:
        train: Base classifiers without a checkpoint.
        certify: Shards of missing images; each needs its run's checkpoint.
        aggregate: The last unit, which needs all others; None where the records file is current.
    """

    train: tuple[TrainUnit, ...]
    certify: tuple[CertifyUnit, ...]
    aggregate: AggregateUnit | None

    @property
    def units(self) -> tuple[Unit, ...]:
        """All units in order."""
        last = () if self.aggregate is None else (self.aggregate,)
        return (*self.train, *self.certify, *last)


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
    certify = tuple(unit for run in manifest.runs for unit in _missing_shards(run, observed, num_shards))
    is_complete = observed.aggregated and not missing_train and not certify
    return Plan(
        train=missing_train,
        certify=certify,
        aggregate=None if is_complete else AggregateUnit(grid=manifest.grid),
    )


def _missing_shards(run: Run, observed: Observation, num_shards: int) -> list[CertifyUnit]:
    missing = missing_from(run.indices, observed.certified[run.train.key, run.certify.key])
    max_size = -(-len(run.indices) // num_shards)
    return [CertifyUnit(run=run, indices=indices) for indices in partition(missing, max_size)]
