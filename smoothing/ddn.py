"""SmoothAdv-DDN, which decouples the direction and the length of a perturbation.

Shapes: B images, M noise draws, C H W image.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from smoothing.attacks import PAPER_ESTIMATOR, per_image, perturbed, unit_direction
from smoothing.counts import BaseClassifier
from smoothing.gradients import GradientEstimator

GAMMA = 0.05
"""Relative change of the length in each step, as in Rony et al. and in the paper."""

LEVELS = 256
"""Levels to which Rony et al. round the images they try: those of 8-bit pixels."""


def smoothadv_ddn(
    base_classifier: BaseClassifier,
    inputs_BCHW: Tensor,
    labels_B: Tensor,
    noise_MBCHW: Tensor,
    *,
    epsilon: float,
    num_steps: int,
    generator: torch.Generator,
    initial_norm: float | Literal["epsilon"] = 1.0,
    num_levels: int | None = LEVELS,
    estimator: GradientEstimator = PAPER_ESTIMATOR,
) -> Tensor:
    """Adversarial examples for the smoothed classifier: the nearest one found.

    Each step adds ``step_size`` times the unit gradient of the loss to the perturbation and gives
    it a new length: shorter by the factor 1 - GAMMA where the smoothed classifier is fooled, longer
    by 1 + GAMMA where it is not. At the end, the smallest perturbation that fooled it, including the
    last one, is projected onto the ball.

    Arguments and result as for ``smoothadv_pgd``, and:

    Args:
        initial_norm: The first length, > 0; ``"epsilon"`` is what the published code does in
            training.
        num_levels: Number of levels to which the images tried are rounded; None: no rounding.

    Returns:
        An image is returned unchanged if no adversarial example was found, or if it is misclassified
        without a perturbation.

    Source:
        Rony et al. 2019, Algorithm 1, with the objective of Salman et al. 2019, equation (6), and
        their projection. Two differences: step sizes follow ``step_size``, because the published code's
        depend on the version of torch; and projection comes after rounding, because otherwise the
        norm may exceed epsilon.
    """
    if epsilon == 0 or num_steps == 0:
        return inputs_BCHW.detach().clone()
    inputs_BCHW = inputs_BCHW.detach()
    delta_BCHW, best_BCHW = torch.zeros_like(inputs_BCHW), torch.zeros_like(inputs_BCHW)
    fallback_BCHW = torch.randn(inputs_BCHW.shape, generator=generator, device=inputs_BCHW.device)
    # No image in [0, 1] is further away than this.
    limit_B = torch.maximum(inputs_BCHW, 1 - inputs_BCHW).flatten(1).norm(dim=1)
    best_norm_B = torch.full_like(limit_B, torch.inf)
    norm_B = torch.full_like(limit_B, epsilon if initial_norm == "epsilon" else initial_norm)
    for step_nr in range(num_steps):
        points_BCHW = inputs_BCHW + delta_BCHW
        gradient_BCHW, prediction_B = estimator.gradient(base_classifier, points_BCHW, labels_B, noise_MBCHW)
        fooled_B = prediction_B != labels_B
        best_BCHW, best_norm_B = _smaller_of(best_BCHW, best_norm_B, delta_BCHW, fooled_B)
        direction_BCHW = unit_direction(gradient_BCHW, fallback_BCHW)
        norm_B = torch.minimum(norm_B * torch.where(fooled_B, 1 - GAMMA, 1 + GAMMA), limit_B)
        moved_BCHW = delta_BCHW + step_size(step_nr, num_steps) * direction_BCHW
        delta_BCHW = per_image(norm_B) * unit_direction(moved_BCHW, fallback_BCHW)
        tried_BCHW = inputs_BCHW + delta_BCHW
        if num_levels is not None:
            tried_BCHW = (tried_BCHW * (num_levels - 1)).round() / (num_levels - 1)
        delta_BCHW = tried_BCHW.clamp(0, 1) - inputs_BCHW
    fooled_B = estimator.prediction(base_classifier, inputs_BCHW + delta_BCHW, noise_MBCHW) != labels_B
    best_BCHW, _ = _smaller_of(best_BCHW, best_norm_B, delta_BCHW, fooled_B)
    return perturbed(inputs_BCHW, best_BCHW, epsilon)


def step_size(step_nr: int, num_steps: int) -> float:
    """The factor of the unit gradient in step i of T: 0.01 + 0.99 * (1 + cos(pi * i / T)) / 2."""
    return 0.01 + 0.99 * (1 + math.cos(math.pi * step_nr / num_steps)) / 2


def _smaller_of(best_BCHW: Tensor, best_norm_B: Tensor, delta_BCHW: Tensor, fooled_B: Tensor) -> tuple[Tensor, Tensor]:
    """The best perturbations and their lengths, updated with smaller ones that fool the classifier."""
    norm_B = delta_BCHW.flatten(1).norm(dim=1)
    better_B = fooled_B & (norm_B < best_norm_B)
    return torch.where(per_image(better_B), delta_BCHW, best_BCHW), torch.where(better_B, norm_B, best_norm_B)
