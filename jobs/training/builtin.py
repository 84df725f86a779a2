"""The methods of the papers: Gaussian augmentation, SmoothAdv, and vanilla adversarial training.

Shapes: B images, M noise draws, C H W image, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from jobs.plugins import loading
from jobs.specs.train import TrainSpec
from jobs.training.method import Batch, Networks, Objective, Perturbation
from smoothing.attacks import smoothadv_pgd
from smoothing.ddn import smoothadv_ddn
from smoothing.gradients import GradientEstimator, gradient_estimator


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


@dataclass(frozen=True, kw_only=True)
class Adversarial:
    """Adversarial examples for the smoothed classifier, or for the base classifier, in place of the images.

    Source:
        Salman et al. 2019, Pseudocode 1 and Appendix C.1.
    """

    attack: Literal["pgd", "ddn"]  # ddn, or pgd along the gradient that ``estimator`` finds
    num_steps: int  # T
    estimator: GradientEstimator  # finds the direction of ascent
    initial_norm: float | Literal["epsilon"] = 1.0  # DDN's first length
    # Whether the attack runs under the noise of the step (Pseudocode 1) or on the base classifier without noise
    # (Appendix C.1)
    sees_noise: bool = True

    def __call__(self, networks: Networks, batch: Batch, generator: torch.Generator) -> Batch:
        noise_MBCHW = batch.noise_MBCHW if self.sees_noise else torch.zeros_like(batch.noise_MBCHW[:1])
        attack: Callable[..., Tensor] = smoothadv_ddn if self.attack == "ddn" else smoothadv_pgd
        options: dict[str, Any] = {"initial_norm": self.initial_norm} if self.attack == "ddn" else {}
        found_BCHW = attack(
            networks.frozen,
            batch.inputs_BCHW,
            batch.labels_B,
            noise_MBCHW,
            epsilon=batch.epsilon,
            num_steps=self.num_steps,
            generator=generator,
            estimator=self.estimator,
            **options,
        )
        return replace(batch, inputs_BCHW=found_BCHW)


def objective_of(spec: TrainSpec) -> Objective:
    """The objective of a training. Raises ConfigError if its plug-in cannot be imported."""
    if spec.objective is None:
        return cross_entropy
    made: Objective = loading.make(spec.objective)
    return made


def perturbation_of(spec: TrainSpec) -> Perturbation:
    """The perturbation of a training. Raises ConfigError if its plug-in cannot be imported."""
    if spec.perturbation is not None:
        made: Perturbation = loading.make(spec.perturbation)
        return made
    if spec.attack == "none":
        return unperturbed
    return Adversarial(
        attack="ddn" if spec.attack == "ddn" else "pgd",
        num_steps=spec.num_steps,
        estimator=gradient_estimator(spec.attack, sigma=spec.sigma, inverse_temperature=spec.inverse_temperature),
        initial_norm=spec.ddn_initial_norm,
        sees_noise=spec.method == "smoothadv",
    )
