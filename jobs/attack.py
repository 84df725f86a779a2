"""Empirical accuracy of one shard: attacks each image, then classifies the result with PREDICT."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from jobs.files.store import Store
from jobs.shards import Done, Work, run_shard
from jobs.specs.attack import AttackSpec
from jobs.specs.units import Resources, ShardUnit
from smoothing.attacks import smoothadv_pgd
from smoothing.certificate import prediction_from_counts
from smoothing.certify import LabelledImage
from smoothing.counts import LogitsError, class_counts
from smoothing.ddn import smoothadv_ddn
from smoothing.gradients import gradient_estimator
from smoothing.noise import BLOCK_ROWS, NoiseStream


def run(unit: ShardUnit, store: Store, resources: Resources) -> None:
    """Attack the images of a shard, or the rest of them, until its file exists; raises as ``run_shard``.

    All randomness is each image's own, by (seed, index), so that no record depends on shard layout or interruption.

    Source:
        Salman et al. 2019, section 4.2 and Figures 3, 7 and 8.
    """
    spec, num_classes = unit.run.task, unit.train.info.num_classes
    assert isinstance(spec, AttackSpec)

    def attack_all(classifier: torch.nn.Module, images: Iterator[LabelledImage]) -> Iterator[Done]:
        device = next(classifier.buffers()).device
        for labelled in (replace(image, image_CHW=image.image_CHW.to(device)) for image in images):
            found_CHW = attacked(classifier, labelled, spec)
            counts = class_counts(
                classifier,
                found_CHW,
                sigma=spec.sigma,
                num_samples=spec.n,
                num_classes=num_classes,
                stream=NoiseStream(seed=spec.seed, index=labelled.index, stage="prediction"),
                batch_size=resources.batch_size,
            )
            prediction = prediction_from_counts(counts, alpha=spec.alpha)
            columns = {
                "prediction": prediction,
                "counts": counts.tolist(),
                "distance": float((found_CHW.double() - labelled.image_CHW.double()).norm()),
                "correct": prediction == labelled.label,
            }
            yield labelled, columns

    run_shard(unit, store, resources, lambda trained, _: Work(do=functools.partial(attack_all, trained.classifier)))


def attacked(classifier: torch.nn.Module, labelled: LabelledImage, spec: AttackSpec) -> Tensor:
    """The adversarial image, shape (C, H, W), that an attack finds.

    Raises:
        LogitsError: Logits are not finite: an attack that follows them finds nothing, and says nothing.
    """

    def finite(attacked_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = classifier(attacked_BCHW)
        if not logits_BK.isfinite().all():
            raise LogitsError("the classifier's logits are not finite during the attack")
        return logits_BK

    inputs_BCHW = labelled.image_CHW.unsqueeze(0)
    labels_B = torch.tensor([labelled.label], device=inputs_BCHW.device)
    entropy = np.random.SeedSequence((spec.seed, labelled.index)).generate_state(1, np.uint32)[0]
    attack: Callable[..., Tensor] = smoothadv_ddn if spec.attack == "ddn" else smoothadv_pgd
    return attack(
        finite,
        inputs_BCHW,
        labels_B,
        torch.zeros_like(inputs_BCHW).unsqueeze(0) if spec.attack == "vanilla" else _noise(labelled, spec),
        epsilon=spec.epsilon,
        num_steps=spec.num_steps,
        generator=torch.Generator(inputs_BCHW.device).manual_seed(int(entropy)),
        estimator=gradient_estimator(spec.attack, sigma=spec.sigma, inverse_temperature=spec.inverse_temperature),
    )[0]


def _noise(labelled: LabelledImage, spec: AttackSpec) -> Tensor:
    """The image's m_test draws, shape (M, 1, C, H, W); a larger number begins with the draws of a smaller one."""
    stream = NoiseStream(seed=spec.seed, index=labelled.index, stage="attack")
    shape = tuple(labelled.image_CHW.shape)
    blocks = [stream.block(block_nr, shape) for block_nr in range(-(-spec.m_test // BLOCK_ROWS))]
    drawn = torch.from_numpy(np.concatenate(blocks)[: spec.m_test]).to(labelled.image_CHW.device)
    return spec.sigma * drawn.unsqueeze(1)
