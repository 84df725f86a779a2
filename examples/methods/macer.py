"""MACER: the certified radius of correctly classified images is maximised, without an attack.

Zhai et al. 2020, "MACER: Attack-free and Scalable Robust Training via Maximizing Certified Radius",
Algorithm 1: cross-entropy of the mean softmax, plus weight times sigma / 2 times
max(0, gamma - (Phi^-1(p_A) - Phi^-1(p_B))) where the smoothed classifier is right, with p_A and p_B the two
largest mean softmax values at inverse temperature beta.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from jobs.training.method import Batch, Networks
from smoothing.gradients import smoothed_cross_entropy


@dataclass(frozen=True, kw_only=True)
class MACER:
    """The loss; the paper draws 16 noises (m_train).

    Attributes:
        weight: Lambda of the paper.
        gamma: Margin of the hinge, in standard deviations.
        beta: Inverse temperature of the softmax of the radius.
    """

    weight: float = 12.0
    gamma: float = 8.0
    beta: float = 16.0

    def __call__(self, networks: Networks, batch: Batch, generator: torch.Generator) -> Tensor:
        return self.losses(networks.noisy_logits(batch), batch.labels_B, batch.sigma)

    def losses(self, logits_MBK: Tensor, labels_B: Tensor, sigma: float) -> Tensor:
        """The loss of each image, shape (B,)."""
        top_B2, classes_B2 = (self.beta * logits_MBK).softmax(dim=-1).mean(dim=0).topk(2, dim=-1)
        # Where Phi^-1 is infinite or beyond the hinge there is nothing to gain; 1/2 keeps its gradient finite.
        gap_B = torch.special.ndtri(top_B2[:, 0]) - torch.special.ndtri(top_B2[:, 1])
        counts_B = (classes_B2[:, 0] == labels_B) & gap_B.isfinite() & (gap_B.abs() <= self.gamma)
        ends_B2 = torch.special.ndtri(torch.where(counts_B[:, None], top_B2, 0.5))
        short_B = torch.where(counts_B, self.gamma - (ends_B2[:, 0] - ends_B2[:, 1]), 0.0)
        return smoothed_cross_entropy(logits_MBK, labels_B) + self.weight * sigma / 2 * short_B
