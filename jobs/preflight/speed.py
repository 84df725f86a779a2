"""Measures the speed of networks without finished units, to estimate costs."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from jobs.networks.classifier import classifier_for
from jobs.networks.inference import for_inference
from jobs.plugins import isolated
from jobs.preflight.checks import made_up, num_rows
from jobs.specs.certify import Precision
from jobs.specs.train import TrainSpec
from jobs.training.steps import Epoch
from jobs.validation import build
from smoothing.counts import class_counts
from smoothing.noise import NoiseStream

_PATIENCE_S = 2.0  # for a step on a batch as large as those of the training
_REPEATS, _ENOUGH_S = 5, 1.0


def main(folder: Path) -> None:
    """Answer each [fields, precision, threads] with ``image_seconds``; without threads, with ``multiply_adds``."""
    isolated.answer(folder, lambda asked: [_answer(*one) for one in asked])


def _answer(fields: dict[str, Any], precision: Precision | None, threads: int | None) -> float | None:
    spec = build(TrainSpec, fields, where="train")
    try:
        return multiply_adds(spec) if threads is None else image_seconds(spec, precision, threads)
    except Exception:  # the checks before a launch say why a network fails
        return None


def multiply_adds(spec: TrainSpec) -> int:
    """The multiply-adds of a forward pass of one image, in matrix products and convolutions."""
    classifier = classifier_for(spec).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        classifier(torch.zeros((1, *spec.info.image_shape)))
    return int(counter.get_total_flops()) // 2


def image_seconds(spec: TrainSpec, precision: Precision | None, threads: int) -> float:
    """Seconds for one image on this machine's CPUs if they are idle, with this number of ``threads``.

    ``precision`` is that of votes on noisy images; None is a step of the training.
    """
    torch.set_num_threads(threads)
    if precision is not None:
        num_samples = 8 * num_rows(spec.info)  # as many noisy images to count votes on as in a step
        network = for_inference(classifier_for(spec).eval(), precision, torch.device("cpu"))

        def count() -> None:
            class_counts(
                network,
                torch.full(spec.info.image_shape, 0.5),
                sigma=1.0,
                num_samples=num_samples,
                num_classes=spec.info.num_classes,
                stream=NoiseStream(seed=0, index=0, stage="prediction"),
                batch_size=num_samples,
            )

        return _seconds(count) / threads / num_samples
    seconds = _step_seconds(spec, num_rows(spec.info) // spec.m_train)
    batch_size = spec.batch_size // spec.num_processes
    # A small network takes up to twice as long for an image of a small batch, and is quickly tried on a large one.
    return (_step_seconds(spec, batch_size) if seconds * batch_size <= _PATIENCE_S else seconds) / threads


def _step_seconds(spec: TrainSpec, num_images: int) -> float:
    """CPU seconds per image of a step of the last epoch on ``num_images`` images, at least one."""
    stepper, images, generator = made_up(spec, max(1, num_images))
    epoch = Epoch(number=spec.epochs - 1, epsilon=spec.epsilon, shared=generator, own=generator)
    return _seconds(lambda: [*stepper.steps(images, epoch)]) / images.num_images


def _seconds(act: Callable[[], object]) -> float:
    """CPU seconds of a call on all CPUs, not counting other work: the best of several, after one to warm up."""
    act()
    found: list[float] = []
    while not found or (len(found) < _REPEATS and sum(found) < _ENOUGH_S):
        began = time.process_time()
        act()
        found.append(time.process_time() - began)
    return min(found)
