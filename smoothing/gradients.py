"""Estimators of the gradient of the smoothed classifier's loss, which attacks follow.

Shapes: B images, M noise draws, C H W image, K classes, R = M * B rows of one batch.
"""

import abc
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothing.counts import BaseClassifier


def smoothed_cross_entropy(logits_MBK: Tensor, labels_B: Tensor) -> Tensor:
    """Cross-entropy of the softmax averaged over noise draws, for each image.

    Args:
        logits_MBK: Logits of M noisy copies of B images.
        labels_B: True classes, int64.

    Returns:
        -log((1 / M) * sum_m softmax(logits_m)[label]), shape (B,), >= 0. For M = 1 this is
        the ordinary cross-entropy.

    Source:
        Salman et al. 2019, equation (6): the plug-in estimate of -log E[F(x + noise)_y]. Computed
        in logarithms, so that no probability underflows.
    """
    log_probabilities_MBK = torch.log_softmax(logits_MBK, dim=-1)
    labels_MB1 = labels_B.expand(len(logits_MBK), -1).unsqueeze(-1)
    log_probability_MB = log_probabilities_MBK.gather(-1, labels_MB1).squeeze(-1)
    return math.log(len(logits_MBK)) - torch.logsumexp(log_probability_MB, dim=0)


@dataclass(frozen=True, kw_only=True)
class GradientEstimator(abc.ABC):
    """Gives an attack its direction, and the smoothed classifier's prediction."""

    # Factor beta > 0 of the logits inside the softmax; 1 is the paper's choice, and a large factor brings the softmax
    # close to the vote.
    inverse_temperature: float = 1.0

    @abc.abstractmethod
    def gradient(
        self, base_classifier: BaseClassifier, points_BCHW: Tensor, labels_B: Tensor, noise_MBCHW: Tensor
    ) -> tuple[Tensor, Tensor]:
        """A direction in which the smoothed classifier's loss grows.

        Args:
            base_classifier: Maps inputs_BCHW to logits_BK.
            points_BCHW: Points at which to differentiate.
            labels_B: True classes, int64.
            noise_MBCHW: M noise draws for each image, scaled by sigma.

        Returns:
            The direction, shape (B, C, H, W), and the smoothed classifier's predictions, shape (B,).
        """

    def prediction(self, base_classifier: BaseClassifier, points_BCHW: Tensor, noise_MBCHW: Tensor) -> Tensor:
        """Only the smoothed classifier's predictions_B, at the cost of one forward pass."""
        with torch.no_grad():
            return _prediction(self._outputs(self._logits(base_classifier, points_BCHW, noise_MBCHW)))

    def _logits(self, base_classifier: BaseClassifier, points_BCHW: Tensor, noise_MBCHW: Tensor) -> Tensor:
        logits_RK = base_classifier((points_BCHW + noise_MBCHW).flatten(0, 1))
        return self.inverse_temperature * logits_RK.reshape(*noise_MBCHW.shape[:2], -1)

    def _outputs(self, logits_MBK: Tensor) -> Tensor:
        return torch.softmax(logits_MBK, dim=-1)


class PlugInEstimator(GradientEstimator):
    """The gradient of ``smoothed_cross_entropy`` by automatic differentiation.

    Source:
        Salman et al. 2019, equation (6); Appendix B for the inverse temperature.
    """

    def gradient(
        self, base_classifier: BaseClassifier, points_BCHW: Tensor, labels_B: Tensor, noise_MBCHW: Tensor
    ) -> tuple[Tensor, Tensor]:
        points_BCHW = points_BCHW.detach().requires_grad_(True)
        logits_MBK = self._logits(base_classifier, points_BCHW, noise_MBCHW)
        loss = smoothed_cross_entropy(logits_MBK, labels_B).sum()
        (gradient_BCHW,) = torch.autograd.grad(loss, points_BCHW)
        return gradient_BCHW, _prediction(self._outputs(logits_MBK.detach()))


@dataclass(frozen=True, kw_only=True)
class SteinEstimator(GradientEstimator):
    """The gradient of minus the smoothed classifier's probability, from function values only.

    By Stein's lemma the gradient of E[F(x + noise)_y] is E[F(x + noise)_y * noise] / sigma ** 2,
    whether or not F is differentiable. The mean over M draws, mean_i(-F(x + noise_i)_y * noise_i) /
    sigma ** 2, is an unbiased estimate whose variance grows with the number of pixels. The gradient of
    the loss has the same direction: the logarithm only scales it.

    Source:
        Salman et al. 2019, equation (7) and Figure 8.
    """

    sigma: float  # standard deviation of the noise; ValueError unless > 0
    hard: bool = False  # whether F is the vote (1 for the class of the largest logit, 0 for others) or the softmax

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise ValueError(f"Stein's lemma needs noise: sigma must be > 0, got {self.sigma!r}")

    def gradient(
        self, base_classifier: BaseClassifier, points_BCHW: Tensor, labels_B: Tensor, noise_MBCHW: Tensor
    ) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            outputs_MBK = self._outputs(self._logits(base_classifier, points_BCHW, noise_MBCHW))
            output_MB = outputs_MBK.gather(-1, labels_B.expand(len(outputs_MBK), -1).unsqueeze(-1)).squeeze(-1)
            gradient_BCHW = -(output_MB[:, :, None, None, None] * noise_MBCHW).mean(dim=0) / self.sigma**2
            return gradient_BCHW, _prediction(outputs_MBK)

    def _outputs(self, logits_MBK: Tensor) -> Tensor:
        if not self.hard:
            return super()._outputs(logits_MBK)
        return torch.nn.functional.one_hot(logits_MBK.argmax(dim=-1), logits_MBK.shape[-1]).to(logits_MBK)


def gradient_estimator(attack: str, *, sigma: float, inverse_temperature: float) -> GradientEstimator:
    """The estimator of a named attack: for stein and stein_hard the gradient-free one, for others the plug-in one.

    Args:
        attack: Its name; stein_hard uses the votes, stein the softmax.
        sigma: Standard deviation of the noise, >= 0; only Stein's estimator needs it, and needs it > 0.
        inverse_temperature: Factor of the logits inside the softmax, > 0.
    """
    if attack in ("stein", "stein_hard"):
        return SteinEstimator(sigma=sigma, hard=attack == "stein_hard", inverse_temperature=inverse_temperature)
    return PlugInEstimator(inverse_temperature=inverse_temperature)


def _prediction(outputs_MBK: Tensor) -> Tensor:
    return outputs_MBK.mean(dim=0).argmax(dim=-1)
