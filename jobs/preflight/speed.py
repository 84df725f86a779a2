"""python -m jobs.preflight.speed FOLDER: how fast networks are of which nothing was measured, to estimate a cost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from jobs.networks.classifier import classifier_for
from jobs.networks.inference import best_seconds, for_inference
from jobs.plugins import isolated
from jobs.preflight.checks import made_up, num_rows
from jobs.specs.certify import Precision
from jobs.specs.train import TrainSpec
from jobs.training.steps import Epoch
from jobs.validation import build
from smoothing.counts import call_shape

_CPU = torch.device("cpu")


def main(folder: Path) -> None:
    """Answer trainings, each [fields, precision, threads], with ``image_seconds``; without threads, ``multiply_adds``.

    Nothing is answered for a network that fails: why it does, the checks before a launch say.
    """
    isolated.answer(folder, lambda asked: [_answer(*one) for one in asked])


def _answer(fields: dict[str, Any], precision: Precision | None, threads: int | None) -> float | None:
    spec = build(TrainSpec, fields, where="train")
    try:
        return multiply_adds(spec) if threads is None else image_seconds(spec, precision, threads)
    except Exception:  # a plug-in's code may raise anything
        return None


def multiply_adds(spec: TrainSpec) -> int:
    """Those of a forward pass of one image, in matrix products and convolutions."""
    classifier = classifier_for(spec).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        classifier(torch.zeros((1, *spec.info.image_shape)))
    return int(counter.get_total_flops()) // 2


def image_seconds(spec: TrainSpec, precision: Precision | None, threads: int) -> float:
    """Seconds for one image on this machine's CPU.

    Args:
        spec: The network, and how it is trained.
        precision: That of a forward pass of a certification or an attack; None is a step of the training.
        threads: Of the process.
    """
    if precision is not None:
        torch.set_num_threads(1)  # each thread runs the network for itself
        inputs_BCHW = torch.rand(call_shape(spec.info.image_shape, 1, _CPU))
        with torch.inference_mode():
            network = for_inference(classifier_for(spec).eval(), precision, _CPU)
            return best_seconds(network, inputs_BCHW) / len(inputs_BCHW) / threads
    torch.set_num_threads(threads)
    stepper, images, generator = made_up(spec, max(1, num_rows(spec.info) // spec.m_train))
    epoch = Epoch(number=spec.epochs - 1, epsilon=spec.epsilon, shared=generator, own=generator)
    return best_seconds(lambda _: [*stepper.steps(images, epoch)], images.inputs_BCHW, repeats=1) / images.num_images


if __name__ == "__main__":
    main(Path(sys.argv[1]))
