"""CAT-RS: images that the smoothed classifier knows are trained on their worst noise, the others on their easiest.

Jeong, Kim and Shin 2023, "Confidence-aware Training of Smoothed Classifiers for Certified Robustness": of M draws the
K ~ max(1, Bin(M, share classified right)) of least cross-entropy count; where K = M, weight times
max_i KL(F^ || F(x + noise_i*)) is added, noise_i* within epsilon of noise_i, F^ the mean softmax of the draws."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from jobs.training.method import Batch, Networks
from smoothing.attacks import project_l2

IMAGE = {"dim": (1, 2, 3), "keepdim": True}


@dataclass(frozen=True, kw_only=True)
class WorstNoise:
    """Perturbation: M further draws, moved in T steps from the M given ones; mean and length are kept."""

    num_steps: int = 4

    def __call__(self, networks: Networks, batch: Batch, generator: torch.Generator) -> Batch:
        given, x = batch.noise_MBCHW.flatten(0, 1), batch.inputs_BCHW.repeat(len(batch.noise_MBCHW), 1, 1, 1)
        with torch.no_grad():
            target_MBK = networks.frozen(x + given).unflatten(0, batch.noise_MBCHW.shape[:2]).softmax(dim=-1)
        target, found = target_MBK.mean(dim=0).repeat(len(target_MBK), 1), given
        for _ in range(self.num_steps if batch.epsilon else 0):
            found = found.detach().requires_grad_(True)
            unlike = kl_div(networks.frozen(x + found).log_softmax(dim=-1), target, reduction="sum")
            (gradient,) = torch.autograd.grad(unlike, found)
            step = 2 * batch.epsilon / self.num_steps * gradient / (gradient.square().sum(**IMAGE).sqrt() + 1e-8)
            moved = given + project_l2(found.detach() + step - given, batch.epsilon)
            centred = (moved - moved.mean(**IMAGE)) / moved.square().mean(**IMAGE).sqrt()
            found = given.mean(**IMAGE) + given.square().mean(**IMAGE).sqrt() * centred
        return replace(batch, noise_MBCHW=torch.cat([batch.noise_MBCHW, found.view_as(batch.noise_MBCHW)]))


@dataclass(frozen=True, kw_only=True)
class CatRS:
    """The loss of each image after ``WorstNoise``; ``weight`` is lambda of the paper."""

    weight: float = 1.0

    def __call__(self, networks: Networks, batch: Batch, generator: torch.Generator) -> Tensor:
        given_MBK, worst_MBK = networks.noisy_logits(batch).chunk(2)
        uniform_MB = torch.rand(given_MBK.shape[:2], generator=generator, device=given_MBK.device)
        return self.losses(given_MBK, worst_MBK, batch.labels_B, uniform_MB)

    def losses(self, logits_MBK: Tensor, worst_MBK: Tensor, labels_B: Tensor, uniform_MB: Tensor) -> Tensor:
        entropy_MB = torch.stack([cross_entropy(one_BK, labels_B, reduction="none") for one_BK in logits_MBK])
        right_MB = logits_MBK.argmax(dim=-1) == labels_B
        count_B = (uniform_MB < right_MB.float().mean(dim=0)).sum(dim=0).clamp_min(1)  # drawn from Bin(M, right)
        counts_MB = torch.arange(len(entropy_MB), device=count_B.device)[:, None] < count_B
        target_BK = logits_MBK.detach().softmax(dim=-1).mean(dim=0)
        unlike_MBK = kl_div(worst_MBK.log_softmax(dim=-1), target_BK.expand_as(worst_MBK), reduction="none")
        worst_B = self.weight * counts_MB.all(dim=0) * unlike_MBK.sum(dim=-1).amax(dim=0)
        return (entropy_MB.sort(dim=0).values * counts_MB).mean(dim=0) + worst_B
