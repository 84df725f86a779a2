"""Consistency regularisation: the noisy copies of an image are classified alike, and with confidence.

Jeong and Shin 2020, "Consistency Regularization for Certified Robustness of Smoothed Classifiers",
equation (7): with the mean softmax F^ over the draws, cross-entropy plus weight times the mean of
KL(F^ || F(x + noise)) plus eta times the entropy of F^.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from jobs.training.method import Batch, Networks


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """The loss; needs m_train of 2 or more.

    Attributes:
        weight: Lambda of the paper, of the divergence.
        eta: Of the entropy.
    """

    weight: float = 10.0
    eta: float = 0.5

    def __call__(self, networks: Networks, batch: Batch, generator: torch.Generator) -> Tensor:
        return self.losses(networks.noisy_logits(batch), batch.labels_B)

    def losses(self, logits_MBK: Tensor, labels_B: Tensor) -> Tensor:
        """The loss of each image, shape (B,)."""
        labels_MB = labels_B.expand(len(logits_MBK), -1)
        entropy_MB = cross_entropy(logits_MBK.flatten(0, 1), labels_MB.flatten(), reduction="none").view_as(labels_MB)
        log_MBK = logits_MBK.log_softmax(dim=-1)
        mean_BK = log_MBK.exp().mean(dim=0)
        log_mean_BK = torch.logsumexp(log_MBK, dim=0) - torch.tensor(float(len(log_MBK))).log().to(log_MBK)
        divergence_B = (mean_BK * (log_mean_BK - log_MBK.mean(dim=0))).sum(dim=-1)
        entropy_B = -(mean_BK * log_mean_BK).sum(dim=-1)
        return entropy_MB.mean(dim=0) + self.weight * divergence_B + self.eta * entropy_B
