"""How many noisy images a second a GPU takes, and a CPU draws: measured elsewhere, good to a factor of about two."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from jobs.datasets import dataset_info
from jobs.specs.runs import Run

FORWARD_PER_S: Mapping[str, float] = {
    # The best of the published certification logs, whose GPUs are not named: 100,100 noisy copies of
    # an image in 3.6 s and in 22.9 s.
    "cifar_resnet110": 28_000.0,
    "resnet50": 4_400.0,
    # ResNet-110's, by the number of multiplications.
    "cifar_resnet56": 56_000.0,
    "cifar_resnet20": 174_000.0,
}
"""Forward passes of one image that one GPU of about 2019 does in a second, with the code of then."""

GAUSSIAN_VALUES_PER_S = 86e6
"""Pixels of Gaussian noise that one CPU core draws in a second: 29,000 images of CIFAR-10, 570 of ImageNet."""

_MIN_CPUS = 2


def drawn_per_s(run: Run) -> float:
    """Noisy images a second for which one CPU draws the noise; infinite where the GPU draws it."""
    if run.stage == "certify" and run.certify.noise == "exact_grid":
        return math.inf
    return GAUSSIAN_VALUES_PER_S / math.prod(dataset_info(run.train.dataset).image_shape)


def cpus_to_certify(runs: Iterable[Run]) -> int:
    """CPUs of a job that certifies any of some runs: enough that a GPU does not wait for noise."""
    needed = (FORWARD_PER_S.get(run.train.architecture, 0.0) / drawn_per_s(run) for run in runs)
    return max(_MIN_CPUS, math.ceil(max(needed, default=0.0)))
