"""What units cost, in forward passes of one image: for progress, order and estimates."""

from __future__ import annotations

from jobs.datasets import dataset_info
from jobs.specs import CertifySpec, TrainSpec
from jobs.units import AggregateUnit, TrainUnit, Unit

_BACKWARD = 2.0  # a backward pass costs about two forward passes


def unit_cost(unit: Unit) -> float:
    """Forward passes a unit takes, about."""
    if isinstance(unit, TrainUnit):
        return train_cost(unit.train)
    if isinstance(unit, AggregateUnit):
        return 0.0
    return certify_cost(unit.run.certify, len(unit.indices))


def certify_cost(spec: CertifySpec, num_images: int) -> float:
    """Each image is passed forward n0 + n times."""
    return float(num_images) * (spec.n0 + spec.n)


def train_cost(spec: TrainSpec) -> float:
    """Every image of every epoch goes forward and backward m times, in each attack step and once more."""
    images = dataset_info(spec.dataset).num_images["train"] * spec.epochs
    return images * spec.m_train * (spec.num_steps + 1) * (1.0 + _BACKWARD)
