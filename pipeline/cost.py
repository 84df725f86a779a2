"""What units cost, in forward passes of one image: for progress and estimates."""

from __future__ import annotations

from jobs.datasets import dataset_info
from jobs.specs.attack import AttackSpec
from jobs.specs.runs import Run
from jobs.specs.train import TrainSpec
from jobs.specs.units import ShardUnit, Unit

_BACKWARD = 2.0  # a backward pass costs about two forward passes


def unit_cost(unit: Unit) -> float:
    """Forward passes a unit takes, about."""
    if isinstance(unit, ShardUnit):
        return images_cost(unit.run, len(unit.indices))
    return 0.0 if unit.train is None else train_cost(unit.train)


def images_cost(run: Run, num_images: int) -> float:
    """Forward passes that some images of a certification or an attack take."""
    task = run.task
    before = task.n0 if task.stage == "certify" else attack_cost(task)
    return float(num_images) * (before + task.n)


def train_cost(spec: TrainSpec) -> float:
    """Forward passes of a training: those of the attack's steps and one more, forward and backward, for m draws."""
    if spec.is_taken:
        return 0.0
    # Sub-batches share the batch's m draws: the same rows in m steps.
    draws_attack = 1 if spec.method in ("vanilla", "vanilla_noise") else spec.m_train
    images = dataset_info(spec.dataset).num_images["train"] * spec.epochs
    both = 1.0 + _BACKWARD
    step = 1.0 if spec.attack in ("stein", "stein_hard") else both
    last = 1.0 if spec.attack == "ddn" else 0.0  # DDN judges its last perturbation
    return images * (draws_attack * (spec.num_steps * step + last) + spec.m_train * both)


def attack_cost(spec: AttackSpec) -> float:
    """Forward passes of one image's attack."""
    step = 1.0 if spec.attack in ("stein", "stein_hard") else 1.0 + _BACKWARD
    return spec.m_test * spec.num_steps * step
