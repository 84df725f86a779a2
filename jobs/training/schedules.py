"""What changes from epoch to epoch: the attack's radius and the learning rate."""

import math

from jobs.specs.train import TrainSpec


def epsilon_at(spec: TrainSpec, epoch: int) -> float:
    """The attack radius of an epoch: linear up to its full value, full from ``warmup_epochs`` on.

    With ``warmup=paper`` it is 0 in the first epoch, with ``warmup=published`` the published code's
    epsilon / warmup_epochs.

    Source:
        Salman et al. 2019, appendix on training (warm-up over ten epochs).
    """
    reached = epoch if spec.warmup == "paper" else epoch + 1
    if reached >= spec.warmup_epochs:
        return spec.epsilon
    return spec.epsilon * reached / spec.warmup_epochs


def learning_rate_at(spec: TrainSpec, epoch: int) -> float:
    """The learning rate of an epoch: a step down by ``lr_gamma`` every ``lr_step_epochs``, or half a cosine."""
    if spec.schedule == "cosine":
        return spec.learning_rate * (1 + math.cos(math.pi * epoch / spec.epochs)) / 2
    return spec.learning_rate * spec.lr_gamma ** (epoch // spec.lr_step_epochs)
