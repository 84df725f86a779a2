"""Estimators of the gradient of the smoothed classifier's loss, which attacks follow.

Shapes: B images, M noise draws, C H W image, K classes, R = M * B rows of one batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from smoothing.counts import BaseClassifier


class GradientEstimator(Protocol):
    """Gives an attack its direction, and the smoothed classifier's prediction."""

    def gradient(
        self, base_classifier: BaseClassifier, points_BCHW: Tensor, labels_B: Tensor, noise_MBCHW: Tensor
    ) -> tuple[Tensor, Tensor]:
        """A direction_BCHW in which the smoothed classifier's loss grows, and its predictions_B."""
        ...

    def prediction(self, base_classifier: BaseClassifier, points_BCHW: Tensor, noise_MBCHW: Tensor) -> Tensor:
        """Only the smoothed classifier's predictions_B, at the cost of one forward pass."""
        ...


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


def plug_in_gradient(
    base_classifier: BaseClassifier,
    points_BCHW: Tensor,
    labels_B: Tensor,
    noise_MBCHW: Tensor,
    *,
    inverse_temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The gradient of ``smoothed_cross_entropy`` by automatic differentiation.

    Args:
        base_classifier: Maps inputs_BCHW to logits_BK.
        points_BCHW: Points at which to differentiate.
        labels_B: True classes, int64.
        noise_MBCHW: M noise draws for each image, scaled by sigma.
        inverse_temperature: Factor beta > 0 of the logits inside the softmax; 1 is the paper's
            choice, and a large factor brings the softmax close to the vote.

    Returns:
        The gradient, shape (B, C, H, W), and the smoothed classifier's predictions, shape (B,).

    Source:
        Salman et al. 2019, equation (6); Appendix B for the inverse temperature.
    """
    points_BCHW = points_BCHW.detach().requires_grad_(True)
    logits_MBK = inverse_temperature * _logits(base_classifier, points_BCHW, noise_MBCHW)
    loss = smoothed_cross_entropy(logits_MBK, labels_B).sum()
    (gradient_BCHW,) = torch.autograd.grad(loss, points_BCHW)
    return gradient_BCHW, _soft_prediction(logits_MBK.detach())


def stein_gradient(
    base_classifier: BaseClassifier,
    points_BCHW: Tensor,
    labels_B: Tensor,
    noise_MBCHW: Tensor,
    *,
    sigma: float,
    hard: bool = False,
    inverse_temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The gradient of minus the smoothed classifier's probability, from function values only.

    By Stein's lemma the gradient of E[F(x + noise)_y] is E[F(x + noise)_y * noise] / sigma ** 2,
    whether or not F is differentiable. The mean over M draws is an unbiased estimate whose variance
    grows with the number of pixels.

    Args:
        base_classifier: Maps inputs_BCHW to logits_BK.
        points_BCHW: Points at which to differentiate.
        labels_B: True classes, int64.
        noise_MBCHW: M noise draws for each image, scaled by sigma.
        sigma: Standard deviation of the noise, > 0.
        hard: Whether F is the vote (1 for the class of the largest logit, 0 for others) or the softmax.
        inverse_temperature: Inverse temperature of the softmax, > 0.

    Returns:
        mean_i(-F(x + noise_i)_y * noise_i) / sigma ** 2, shape (B, C, H, W), and the smoothed
        classifier's predictions, shape (B,). The gradient of the loss has the same direction: the
        logarithm only scales it.

    Raises:
        ValueError: ``sigma`` is not positive.

    Source:
        Salman et al. 2019, equation (7) and Figure 8.
    """
    if not sigma > 0:
        raise ValueError(f"Stein's lemma needs noise: sigma must be > 0, got {sigma!r}")
    with torch.no_grad():
        logits_MBK = inverse_temperature * _logits(base_classifier, points_BCHW, noise_MBCHW)
        outputs_MBK = _hard_outputs(logits_MBK) if hard else torch.softmax(logits_MBK, dim=-1)
        output_MB = outputs_MBK.gather(-1, labels_B.expand(len(logits_MBK), -1).unsqueeze(-1)).squeeze(-1)
        gradient_BCHW = -(output_MB[:, :, None, None, None] * noise_MBCHW).mean(dim=0) / sigma**2
        return gradient_BCHW, outputs_MBK.mean(dim=0).argmax(dim=-1)


@dataclass(frozen=True, kw_only=True)
class PlugInEstimator:
    """``plug_in_gradient`` at one inverse temperature."""

    inverse_temperature: float = 1.0

    def gradient(
        self, base_classifier: BaseClassifier, points_BCHW: Tensor, labels_B: Tensor, noise_MBCHW: Tensor
    ) -> tuple[Tensor, Tensor]:
        beta = self.inverse_temperature
        return plug_in_gradient(base_classifier, points_BCHW, labels_B, noise_MBCHW, inverse_temperature=beta)

    def prediction(self, base_classifier: BaseClassifier, points_BCHW: Tensor, noise_MBCHW: Tensor) -> Tensor:
        with torch.no_grad():
            return _soft_prediction(self.inverse_temperature * _logits(base_classifier, points_BCHW, noise_MBCHW))


@dataclass(frozen=True, kw_only=True)
class SteinEstimator:
    """``stein_gradient`` for noise of one sigma, with soft or hard outputs."""

    sigma: float
    hard: bool = False
    inverse_temperature: float = 1.0

    def gradient(
        self, base_classifier: BaseClassifier, points_BCHW: Tensor, labels_B: Tensor, noise_MBCHW: Tensor
    ) -> tuple[Tensor, Tensor]:
        return stein_gradient(
            base_classifier,
            points_BCHW,
            labels_B,
            noise_MBCHW,
            sigma=self.sigma,
            hard=self.hard,
            inverse_temperature=self.inverse_temperature,
        )

    def prediction(self, base_classifier: BaseClassifier, points_BCHW: Tensor, noise_MBCHW: Tensor) -> Tensor:
        with torch.no_grad():
            logits_MBK = self.inverse_temperature * _logits(base_classifier, points_BCHW, noise_MBCHW)
            return _hard_outputs(logits_MBK).mean(dim=0).argmax(dim=-1) if self.hard else _soft_prediction(logits_MBK)


def gradient_estimator(attack: str, *, sigma: float, inverse_temperature: float) -> GradientEstimator:
    """The estimator of a named attack.

    Args:
        attack: stein and stein_hard use the gradient-free estimator with soft or hard outputs; every other
            attack uses the plug-in estimator.
        sigma: Standard deviation of the noise, >= 0; only Stein's estimator needs it, and needs it > 0.
        inverse_temperature: Factor of the logits inside the softmax, > 0.
    """
    if attack in ("stein", "stein_hard"):
        return SteinEstimator(sigma=sigma, hard=attack == "stein_hard", inverse_temperature=inverse_temperature)
    return PlugInEstimator(inverse_temperature=inverse_temperature)


def _logits(base_classifier: BaseClassifier, points_BCHW: Tensor, noise_MBCHW: Tensor) -> Tensor:
    logits_RK = base_classifier((points_BCHW + noise_MBCHW).flatten(0, 1))
    return logits_RK.reshape(*noise_MBCHW.shape[:2], -1)


def _soft_prediction(logits_MBK: Tensor) -> Tensor:
    return torch.softmax(logits_MBK, dim=-1).mean(dim=0).argmax(dim=-1)


def _hard_outputs(logits_MBK: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(logits_MBK.argmax(dim=-1), logits_MBK.shape[-1]).to(logits_MBK)
