"""The parts of a training method: a perturbation of the batch, and the objective to minimise.

The pipeline draws images and noise, keeps replicas and precision, takes the optimizer's steps, saves,
resumes and logs; a method says no more than how a batch is perturbed and what its loss is:

    noise -> perturbation -> objective -> optimizer

A perturbation or an objective of your own is a frozen dataclass whose fields are its recipe, and may
have a class attribute ``VERSION`` (an integer, 1 by default) to be raised when its meaning changes.

Shapes: B images, M noise draws, C H W image, K classes.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from jobs.errors import ConfigError
from jobs.plugins.loading import place_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """One optimizer step's images, as one process has them."""

    inputs_BCHW: Tensor  # images in [0, 1], float32
    labels_B: Tensor  # their classes, int64
    noise_MBCHW: Tensor  # M draws for each image, scaled by sigma: the training noise
    indices_B: Tensor  # which images of the training split they are, int64
    sigma: float  # standard deviation of the noise in pixels of [0, 1]; 0 without noise
    epsilon: float  # the attack's radius in this epoch, with the warm-up; 0 without an attack
    epoch: int  # counted from 0
    num_epochs: int  # of the whole training


class Networks(Protocol):
    """The views of the trained network that a method can use. All logits are float32."""

    def noisy_logits(self, batch: Batch) -> Tensor:
        """Logits_MBK of the noisy images, all in one forward pass, in training mode, with gradients."""
        ...

    def logits(self, inputs_BCHW: Tensor) -> Tensor:
        """Logits_BK of any images, in training mode, with gradients."""
        ...

    def frozen(self, inputs_BCHW: Tensor) -> Tensor:
        """Logits_BK in evaluation mode, without gradients of parameters: for attacks, which differentiate by inputs."""
        ...


class Perturbation(Protocol):
    """Changes a batch before the step: other images, or other noise (of any number of draws)."""

    def __call__(self, networks: Networks, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch to train on. Whatever is random is drawn from ``generator``, which is on the batch's device."""
        ...


class Objective(Protocol):
    """The loss to minimise."""

    def __call__(self, networks: Networks, batch: Batch, generator: torch.Generator) -> Tensor:
        """Losses of each image, shape (B,), or of each of its draws, shape (M, B); their mean is minimised."""
        ...


def checked_batch(batch: object, before: Batch, perturbation: Perturbation) -> Batch:
    """The batch that a perturbation returned; raises ConfigError if it is not a batch of the same shape."""
    if not isinstance(batch, Batch):
        raise ConfigError(f"{place_of(perturbation)}: must return a Batch, got {type(batch).__name__}")
    found = (*batch.inputs_BCHW.shape, *batch.noise_MBCHW.shape[1:])
    if found != (*before.inputs_BCHW.shape, *before.noise_MBCHW.shape[1:]):
        raise ConfigError(f"{place_of(perturbation)}: changed the shape of inputs or noise to {found}")
    return batch


def checked_losses(losses: object, batch: Batch, objective: Objective) -> Tensor:
    """The losses that an objective returned; raises ConfigError if they have a wrong shape or no gradient."""
    num_draws, num_images = batch.noise_MBCHW.shape[:2]
    if not isinstance(losses, Tensor) or tuple(losses.shape) not in ((num_images,), (num_draws, num_images)):
        got = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        expected = f"shape ({num_images},) or ({num_draws}, {num_images}), one for each image or each of its draws"
        raise ConfigError(f"{place_of(objective)}: must return losses of {expected}; got {got}")
    if not losses.requires_grad:
        raise ConfigError(f"{place_of(objective)}: its loss has no gradient; use noisy_logits or logits of networks")
    return losses
