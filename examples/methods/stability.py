"""Stability training: clean images are classified, and noisy ones like the clean.

Li, Chen, Wang and Carin 2019, "Certified Adversarial Robustness with Additive Noise", equation (9):
cross-entropy of F(x) plus weight times the cross-entropy of F(x + noise) against F(x).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from jobs.training.method import Batch, Networks


@dataclass(frozen=True, kw_only=True)
class Stability:
    """The loss of stability training.

    Attributes:
        weight: Of the stability term, >= 0.
    """

    weight: float = 2.0

    def __call__(self, networks: Networks, batch: Batch, generator: torch.Generator) -> Tensor:
        return self.losses(networks.logits(batch.inputs_BCHW), networks.noisy_logits(batch), batch.labels_B)

    def losses(self, clean_BK: Tensor, noisy_MBK: Tensor, labels_B: Tensor) -> Tensor:
        """The loss of each image, shape (B,)."""
        unlike_MB = -(clean_BK.softmax(dim=-1) * noisy_MBK.log_softmax(dim=-1)).sum(dim=-1)
        return cross_entropy(clean_BK, labels_B, reduction="none") + self.weight * unlike_MB.mean(dim=0)
