"""The cost of units in forward passes of one image, and how many a GPU runs, or a CPU draws noise for, per second."""

import math
from collections.abc import Iterable, Mapping

from jobs.specs.runs import Run
from jobs.specs.train import TrainSpec
from jobs.specs.units import Unit

FORWARD_PER_S: Mapping[str, float] = {
    # The best of the published certification logs, whose GPUs are not named: 100,100 noisy copies of
    # an image in 3.6 s and in 22.9 s.
    "cifar_resnet110": 28_000.0,
    "resnet50": 4_400.0,
    # Scaled from ResNet-110 by the number of multiplications.
    "cifar_resnet56": 56_000.0,
    "cifar_resnet20": 174_000.0,
}
"""Forward passes of one image per second on a GPU of about 2019 at that time; correct to a factor of two."""

MULTIPLY_ADDS_PER_S = 11e12
"""On such a GPU, for other networks that keep it busy: between ResNet-110 (7e12) and ResNet-50 (18e12)."""

GAUSSIAN_VALUES_PER_S = 86e6
"""Pixels of Gaussian noise that one CPU core draws per second: 29,000 images of CIFAR-10, 570 of ImageNet."""

_MIN_CPUS = 2
_BACKWARD = 2.0  # a backward pass costs about two forward passes


def drawn_per_s(run: Run) -> float:
    """Noisy images per second for which one CPU draws the noise; infinite if the GPU draws it."""
    if run.stage == "certify" and run.certify.noise == "exact_grid":
        return math.inf
    return GAUSSIAN_VALUES_PER_S / math.prod(run.train.info.image_shape)


def cpus_to_certify(runs: Iterable[Run]) -> int:
    """CPUs of a certification job of any of these runs, so that a GPU does not wait for noise."""
    needed = (FORWARD_PER_S.get(run.train.architecture, 0.0) / drawn_per_s(run) for run in runs)
    return max(_MIN_CPUS, math.ceil(max(needed, default=0.0)))


def unit_cost(unit: Unit) -> float:
    """Approximate forward passes of a unit."""
    if unit.run is not None:
        return images_cost(unit.run, len(unit.indices))
    return 0.0 if unit.train is None else train_cost(unit.train)


def images_cost(run: Run, num_images: int) -> float:
    """Forward passes of ``num_images`` images of a certification or an attack."""
    task = run.task
    before = task.n0 if task.stage == "certify" else task.m_test * task.num_steps * _step_cost(task.attack)
    return float(num_images) * (before + task.n)


def train_cost(spec: TrainSpec) -> float:
    """Forward passes of a training: the attack's steps and the training step, forward and backward, for m draws."""
    if spec.is_taken:
        return 0.0
    # Sub-batches share the batch's m draws: the same rows in m steps.
    draws_attack = 1 if spec.method in ("vanilla", "vanilla_noise") else spec.m_train
    images = spec.info.num_images["train"] * spec.epochs
    last = 1.0 if spec.attack == "ddn" else 0.0  # DDN evaluates its last perturbation
    attack = draws_attack * (spec.num_steps * _step_cost(spec.attack) + last)
    return images * (attack + spec.m_train * (1.0 + _BACKWARD))


def _step_cost(attack: str) -> float:
    """Forward passes of one step of an attack, for one noise draw."""
    return 1.0 if attack in ("stein", "stein_hard") else 1.0 + _BACKWARD
