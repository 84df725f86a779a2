"""SmoothMix: images are mixed with adversarial examples of the smoothed classifier, labels with the uniform one.

Jeong et al. 2021, "SmoothMix: Training Confidence-calibrated Smoothed Classifiers for Certified Robustness",
section 3: x_mix = (1 - lambda) x + lambda x_adv and y_mix = (1 - lambda) F^(x) + lambda / K, with lambda
uniform in [0, 1/2]; cross-entropy plus eta times KL(y_mix || F(x_mix + noise)) where F^ is right.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from jobs.training.method import Batch, Networks
from smoothing.attacks import per_image, unit_direction
from smoothing.gradients import PlugInEstimator


@dataclass(frozen=True, kw_only=True)
class SmoothMix:
    """The loss.

    Attributes:
        eta: Weight of the mixed images' loss.
        step_size: Length of an attack's step in pixels of [0, 1]; the attack has no other bound.
        num_steps: T.
    """

    eta: float = 1.0
    step_size: float = 0.5
    num_steps: int = 4

    def __call__(self, networks: Networks, batch: Batch, generator: torch.Generator) -> Tensor:
        x, noise_MBCHW = batch.inputs_BCHW, batch.noise_MBCHW
        direction_BCHW = torch.randn(x.shape, generator=generator, device=x.device)  # where the gradient vanishes
        found = x
        for _ in range(self.num_steps):
            gradient, _ = PlugInEstimator().gradient(networks.frozen, found, batch.labels_B, noise_MBCHW)
            found = (found + self.step_size * unit_direction(gradient, direction_BCHW)).clamp(0, 1)
        mix_B = torch.rand(len(x), generator=generator, device=x.device) / 2
        logits_MBK = networks.noisy_logits(batch)
        mixed = replace(batch, inputs_BCHW=x + per_image(mix_B) * (found - x))
        return self.losses(logits_MBK, networks.noisy_logits(mixed), batch.labels_B, mix_B)

    def losses(self, logits_MBK: Tensor, mixed_MBK: Tensor, labels_B: Tensor, mix_B: Tensor) -> Tensor:
        """The loss of each draw of each image, shape (M, B)."""
        mean_BK = logits_MBK.softmax(dim=-1).mean(dim=0)
        target_BK = torch.lerp(mean_BK, torch.full_like(mean_BK, 1 / mean_BK.shape[-1]), mix_B[:, None])
        unlike_MB = kl_div(mixed_MBK.log_softmax(dim=-1), target_BK.expand_as(mixed_MBK), reduction="none").sum(dim=-1)
        right_B = mean_BK.argmax(dim=-1) == labels_B
        labels_MB = labels_B.expand(len(logits_MBK), -1)
        entropy_MB = cross_entropy(logits_MBK.flatten(0, 1), labels_MB.flatten(), reduction="none").view_as(labels_MB)
        return entropy_MB + self.eta * right_B * unlike_MB
