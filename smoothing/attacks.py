"""SmoothAdv-PGD, of which vanilla PGD is a case, and what all attacks share.

Shapes: B images, M noise draws, C H W image.
"""

import math

import torch
from torch import Tensor

from smoothing.counts import BaseClassifier
from smoothing.gradients import GradientEstimator, PlugInEstimator

PAPER_ESTIMATOR = PlugInEstimator()
"""Equation (6) by automatic differentiation, inverse temperature 1."""

PROJECTION_SLACK = 1e-6
"""Projection aims inside the ball by this relative margin, so that float32 rounding of the shortened
vector cannot put it outside."""


def smoothadv_pgd(
    base_classifier: BaseClassifier,
    inputs_BCHW: Tensor,
    labels_B: Tensor,
    noise_MBCHW: Tensor,
    *,
    epsilon: float,
    num_steps: int,
    generator: torch.Generator,
    estimator: GradientEstimator = PAPER_ESTIMATOR,
) -> Tensor:
    """Adversarial examples for the smoothed classifier by projected gradient ascent.

    Starts at the inputs and takes ``num_steps`` steps of length 2 * epsilon / num_steps along the
    unit gradient of ``smoothed_cross_entropy``; after each, pixels are clamped to [0, 1] and the
    perturbation is projected onto the ball.

    Args:
        base_classifier: In evaluation mode, with parameters that do not require gradients.
        inputs_BCHW: Clean images in [0, 1].
        labels_B: True classes, int64.
        noise_MBCHW: M noise draws for each image, scaled by sigma; the same in every step. Zero noise
            and M = 1 attack the base classifier (vanilla PGD).
        epsilon: Radius of the l2 ball, >= 0.
        num_steps: T >= 0.
        generator: Supplies the direction for an image whose gradient vanishes.
        estimator: Estimates the direction of ascent: ``PlugInEstimator`` is the paper's,
            ``SteinEstimator`` makes the attack gradient-free.

    Returns:
        Adversarial images, same shape, detached: pixels in [0, 1], within epsilon of the inputs.

    Source:
        Salman et al. 2019, section 3 and Pseudocode 1 (SmoothAdv-PGD); Appendix C.1 (vanilla PGD, which is
        that of Madry et al. 2018 without random start).
    """
    if epsilon == 0 or num_steps == 0:
        return inputs_BCHW.detach().clone()
    delta_BCHW = torch.zeros_like(inputs_BCHW)
    fallback_BCHW = torch.randn(inputs_BCHW.shape, generator=generator, device=inputs_BCHW.device)
    for _ in range(num_steps):
        gradient_BCHW, _ = estimator.gradient(base_classifier, inputs_BCHW + delta_BCHW, labels_B, noise_MBCHW)
        step_BCHW = 2 * epsilon / num_steps * unit_direction(gradient_BCHW, fallback_BCHW)
        delta_BCHW = (inputs_BCHW + delta_BCHW + step_BCHW).clamp(0, 1) - inputs_BCHW
        delta_BCHW = project_l2(delta_BCHW, epsilon)
    return perturbed(inputs_BCHW, delta_BCHW, epsilon)


def unit_direction(vectors_BCHW: Tensor, fallback_BCHW: Tensor) -> Tensor:
    """Each image's vector scaled to length 1; the direction of its fallback if the vector is 0."""
    zero_B = vectors_BCHW.flatten(1).abs().amax(dim=1) == 0
    chosen_BCHW = torch.where(per_image(zero_B), fallback_BCHW, vectors_BCHW)
    # Dividing by the largest entry first prevents tiny gradients from underflowing when squared.
    scaled_BCHW = chosen_BCHW / per_image(chosen_BCHW.flatten(1).abs().amax(dim=1))
    return scaled_BCHW / per_image(scaled_BCHW.flatten(1).norm(dim=1))


def project_l2(delta_BCHW: Tensor, epsilon: float) -> Tensor:
    """Each image's perturbation shortened to length at most ``epsilon``; shorter ones unchanged."""
    # In float64: a float32 sum over a large image errs by more than the slack.
    norm_B = torch.linalg.vector_norm(delta_BCHW.flatten(1), dim=1, dtype=torch.float64)
    shrink_B = (epsilon * (1 - PROJECTION_SLACK) / norm_B.clamp_min(1e-300)).clamp_max(1.0)
    return delta_BCHW * per_image(shrink_B.to(delta_BCHW.dtype))


def perturbed(inputs_BCHW: Tensor, delta_BCHW: Tensor, epsilon: float) -> Tensor:
    """Images plus perturbations, projected into [0, 1] and into the ball of radius ``epsilon``.

    Guarantee:
        The exact distance of the result from the inputs is at most ``epsilon``: the radius is first
        reduced by a bound on the rounding of the sum, half a unit in the last place of numbers below
        1 for each pixel.
    """
    rounding = torch.finfo(inputs_BCHW.dtype).eps / 4 * math.sqrt(inputs_BCHW[0].numel())
    # Rounding may put x + (x' - x) outside [0, 1].
    return (inputs_BCHW + project_l2(delta_BCHW, max(0.0, epsilon - rounding))).clamp(0, 1)


def per_image(values_B: Tensor) -> Tensor:
    """One value per image, shaped to broadcast over its pixels."""
    return values_B[:, None, None, None]
