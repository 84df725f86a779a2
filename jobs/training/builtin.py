"""The methods of the papers: Gaussian augmentation, SmoothAdv, and vanilla adversarial training.

Shapes: B images, M noise draws, C H W image, K classes.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from jobs.plugins import loading
from jobs.specs.train import TrainSpec
from jobs.training.method import Batch, Networks, Objective, Perturbation
from smoothing.attacks import smoothadv_pgd
from smoothing.ddn import smoothadv_ddn
from smoothing.gradients import gradient_estimator


def cross_entropy(networks: Networks, batch: Batch, generator: torch.Generator) -> Tensor:
    """Cross-entropy of every noisy copy of an image.

    Source:
        Cohen et al. 2019, section 3.3; Salman et al. 2019, Pseudocode 1.
    """
    logits_MBK = networks.noisy_logits(batch)
    labels_R = batch.labels_B.repeat(len(logits_MBK))
    losses_R = nn.functional.cross_entropy(logits_MBK.flatten(0, 1), labels_R, reduction="none")
    return losses_R.view(logits_MBK.shape[:2])


def unperturbed(networks: Networks, batch: Batch, generator: torch.Generator) -> Batch:
    """Images as they are."""
    return batch


def adversarial(spec: TrainSpec, networks: Networks, batch: Batch, generator: torch.Generator) -> Batch:
    """Adversarial examples in place of the images.

    The attack runs under the noise of the step, or without noise, on the base classifier.

    Source:
        Salman et al. 2019, Pseudocode 1 and Appendix C.1.
    """
    attack: Callable[..., Tensor] = smoothadv_ddn if spec.attack == "ddn" else smoothadv_pgd
    options: dict[str, Any] = {"initial_norm": spec.ddn_initial_norm} if spec.attack == "ddn" else {}
    found_BCHW = attack(
        networks.frozen,
        batch.inputs_BCHW,
        batch.labels_B,
        batch.noise_MBCHW if spec.method == "smoothadv" else torch.zeros_like(batch.noise_MBCHW[:1]),
        epsilon=batch.epsilon,
        num_steps=spec.num_steps,
        generator=generator,
        estimator=gradient_estimator(spec.attack, sigma=spec.sigma, inverse_temperature=spec.inverse_temperature),
        **options,
    )
    return replace(batch, inputs_BCHW=found_BCHW)


def objective_of(spec: TrainSpec) -> Objective:
    """The objective of a training. Raises ConfigError if its plug-in cannot be imported."""
    return cross_entropy if spec.objective is None else cast(Objective, loading.make(spec.objective))


def perturbation_of(spec: TrainSpec) -> Perturbation:
    """The perturbation of a training. Raises ConfigError if its plug-in cannot be imported."""
    if spec.perturbation is not None:
        return cast(Perturbation, loading.make(spec.perturbation))
    return unperturbed if spec.attack == "none" else partial(adversarial, spec)
