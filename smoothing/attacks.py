"""Attacks on smoothed classifiers.

Shapes: B images, M noise draws, C H W image, K classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from smoothing.counts import BaseClassifier

PROJECTION_SLACK = 1e-6
"""Projection aims this share inside the ball, so that float32 rounding of the shortened vector
cannot put it outside."""


def smoothed_cross_entropy(logits_MBK: Tensor, labels_B: Tensor) -> Tensor:
    """Cross-entropy of the softmax averaged over noise draws, for each image.

    Args:
        logits_MBK: Logits of M noisy copies of B images.
        labels_B: True classes, int64.

    Returns:
        -log((1 / M) * sum_m softmax(logits_m)[label]), shape (B,), >= 0. For M = 1 it is the
        ordinary cross-entropy.

    Source:
        Salman et al. 2019, equation (6): the plug-in estimate of -log E[F(x + noise)_y]. Computed
        in logarithms, so that no probability underflows.
    """
    log_probabilities_MBK = torch.log_softmax(logits_MBK, dim=-1)
    labels_MB1 = labels_B.expand(len(logits_MBK), -1).unsqueeze(-1)
    log_probability_MB = log_probabilities_MBK.gather(-1, labels_MB1).squeeze(-1)
    return math.log(len(logits_MBK)) - torch.logsumexp(log_probability_MB, dim=0)


def smoothadv_pgd(
    base_classifier: BaseClassifier,
    inputs_BCHW: Tensor,
    labels_B: Tensor,
    noise_MBCHW: Tensor,
    *,
    epsilon: float,
    num_steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Adversarial examples for the smoothed classifier by projected gradient ascent.

    Starts at the inputs and takes ``num_steps`` steps of length 2 * epsilon / num_steps along the
    unit gradient of ``smoothed_cross_entropy``; after each, pixels are clamped to [0, 1] and the
    perturbation is projected on the ball.

    Args:
        base_classifier: In evaluation mode, its parameters not requiring gradients.
        inputs_BCHW: Clean images in [0, 1].
        labels_B: True classes, int64.
        noise_MBCHW: The M noise draws for each image, scaled by sigma; the same in every step.
        epsilon: Radius of the l2 ball, >= 0.
        num_steps: T >= 0.
        generator: Supplies the direction for an image whose gradient vanishes.

    Returns:
        Adversarial images, same shape, detached: pixels in [0, 1], within epsilon of the inputs.

    Source:
        Salman et al. 2019, section 3 and Pseudocode 1 (SmoothAdv-PGD).
    """
    if epsilon == 0 or num_steps == 0:
        return inputs_BCHW.detach().clone()
    # x + delta rounds each pixel by at most half a unit in the last place of numbers below 1.
    rounding = torch.finfo(inputs_BCHW.dtype).eps / 4 * math.sqrt(inputs_BCHW[0].numel())
    reach = max(epsilon - rounding, 0.0)
    delta_BCHW = torch.zeros_like(inputs_BCHW)
    fallback_BCHW = torch.randn(inputs_BCHW.shape, generator=generator, device=inputs_BCHW.device)
    for _ in range(num_steps):
        gradient_BCHW = _ascent_gradient(base_classifier, inputs_BCHW + delta_BCHW, labels_B, noise_MBCHW)
        step_BCHW = 2 * epsilon / num_steps * unit_direction(gradient_BCHW, fallback_BCHW)
        delta_BCHW = (inputs_BCHW + delta_BCHW + step_BCHW).clamp(0, 1) - inputs_BCHW
        delta_BCHW = project_l2(delta_BCHW, reach)
    # x + (x' - x) may miss [0, 1] by a rounding error.
    return (inputs_BCHW + delta_BCHW).clamp(0, 1)


def unit_direction(vectors_BCHW: Tensor, fallback_BCHW: Tensor) -> Tensor:
    """Each image's vector scaled to length 1, or its fallback's direction where the vector is 0."""
    zero_B = vectors_BCHW.flatten(1).abs().amax(dim=1) == 0
    chosen_BCHW = torch.where(_per_image(zero_B), fallback_BCHW, vectors_BCHW)
    # Dividing by the largest entry first keeps tiny gradients from underflowing when squared.
    scaled_BCHW = chosen_BCHW / _per_image(chosen_BCHW.flatten(1).abs().amax(dim=1))
    return scaled_BCHW / _per_image(scaled_BCHW.flatten(1).norm(dim=1))


def project_l2(delta_BCHW: Tensor, epsilon: float) -> Tensor:
    """Each image's perturbation shortened to length at most ``epsilon``; shorter ones unchanged."""
    # In float64: a float32 sum over a large image errs by more than the slack.
    norm_B = torch.linalg.vector_norm(delta_BCHW.flatten(1), dim=1, dtype=torch.float64)
    shrink_B = (epsilon * (1 - PROJECTION_SLACK) / norm_B.clamp_min(1e-300)).clamp_max(1.0)
    return delta_BCHW * _per_image(shrink_B.to(delta_BCHW.dtype))


def _ascent_gradient(
    base_classifier: BaseClassifier, points_BCHW: Tensor, labels_B: Tensor, noise_MBCHW: Tensor
) -> Tensor:
    points_BCHW = points_BCHW.detach().requires_grad_(True)
    noisy_RCHW = (points_BCHW + noise_MBCHW).flatten(0, 1)  # R = M * B rows
    logits_RK = base_classifier(noisy_RCHW)
    logits_MBK = logits_RK.reshape(*noise_MBCHW.shape[:2], -1)
    loss = smoothed_cross_entropy(logits_MBK, labels_B).sum()
    (gradient_BCHW,) = torch.autograd.grad(loss, points_BCHW)
    return gradient_BCHW


def _per_image(values_B: Tensor) -> Tensor:
    return values_B[:, None, None, None]
