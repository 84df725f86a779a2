"""What units cost, in forward passes of one image: for progress, order and estimates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass

from jobs.datasets import dataset_info
from jobs.specs.attack import AttackSpec
from jobs.specs.runs import Run
from jobs.specs.train import TrainSpec
from jobs.specs.units import ShardUnit, Stage, Unit
from pipeline.plan import Plan
from pipeline.request.speeds import FORWARD_PER_S, drawn_per_s

_BACKWARD = 2.0  # a backward pass costs about two forward passes


@dataclass(frozen=True, kw_only=True)
class GpuHours:
    """An estimate, good to a factor of about two.

    Attributes:
        hours: Of one GPU, by stage.
        unknown: Architectures left out, since their speed is not known.
    """

    hours: Mapping[Stage, float]
    unknown: Set[str]


def gpu_hours(plan: Plan, certify_cpus: int | None = None) -> GpuHours:
    """What a plan takes on GPUs as fast as FORWARD_PER_S.

    Args:
        plan: Of a launch.
        certify_cpus: CPUs of a job that certifies, for noise that they draw; None is enough of them.
    """
    hours: dict[Stage, float] = defaultdict(float)
    unknown: set[str] = set()
    for unit in plan.units:
        if unit.train is None:
            continue
        architecture = unit.train.architecture
        if architecture in FORWARD_PER_S:
            per_s = FORWARD_PER_S[architecture]
            if certify_cpus is not None and isinstance(unit, ShardUnit) and unit.stage == "certify":
                per_s = min(per_s, certify_cpus * drawn_per_s(unit.run))
            hours[unit.stage] += unit_cost(unit) / per_s / 3600
        else:
            unknown.add(architecture)
    return GpuHours(hours=dict(hours), unknown=unknown)


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
