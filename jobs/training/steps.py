"""One training step: draw noise, attack, descend.

Shapes: B images, M noise draws, C H W image, R = M * B rows, K classes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from jobs.networks.classifier import Classifier
from jobs.networks.compilation import compiled
from jobs.networks.folding import FoldedClassifier
from jobs.specs.train import TrainSpec
from jobs.specs.units import Compile
from jobs.training.distributed import Group
from smoothing.attacks import smoothadv_pgd
from smoothing.ddn import smoothadv_ddn
from smoothing.gradients import gradient_estimator


@dataclass(frozen=True, kw_only=True, eq=False)
class Randomness:
    """The generators of one epoch, on the device.

    Attributes:
        shared: In the same state in all processes, which draw the same from it.
        own: This process's, for what may differ: the attack's way where the gradient vanishes.
    """

    shared: torch.Generator
    own: torch.Generator


@dataclass(kw_only=True, eq=False)
class Stepper:
    """Takes the steps of one training.

    Attributes:
        spec: How.
        classifier: What is trained.
        replica: The classifier, with gradients averaged over all processes.
        optimizer: Of its parameters.
        group: The processes.
        compile: Whether torch.compile fuses the attacked network's operations, forward and backward.
        attacked: The classifier as attacks see it: statistics frozen and folded into convolutions,
            parameters without gradients. Brought up to date once for each step.
    """

    spec: TrainSpec
    classifier: Classifier
    replica: nn.Module
    optimizer: torch.optim.Optimizer
    group: Group
    compile: Compile = False
    attacked: FoldedClassifier = field(init=False)
    _attacked_fast: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        self.classifier.train().to(memory_format=torch.channels_last)
        # Weights in bfloat16 at once: autocast would convert them from float32 in each pass of the attack.
        self.attacked = FoldedClassifier(self.classifier, torch.bfloat16 if self._is_mixed else None)
        self._attacked_fast = compiled(self.attacked, self.compile)

    @property
    def _is_mixed(self) -> bool:
        return self.spec.precision == "bfloat16"

    def steps(
        self, num_images: int, inputs_BCHW: Tensor, labels_B: Tensor, epsilon: float, random: Randomness
    ) -> Iterator[Tensor]:
        """The optimizer steps on one batch: one, or with ``sub_batches`` one for each of m parts.

        Args:
            num_images: Of the global batch.
            inputs_BCHW: This process's share, in [0, 1].
            labels_B: Its classes.
            epsilon: The attack's radius in this epoch.
            random: Of the epoch.

        Yields:
            For each step, over this process's rows: summed loss, number correct and number of
            rows, shape (3,), on the device.
        """
        num_parts = self.spec.m_train if self.spec.multi_noise == "sub_batches" else 1
        if num_parts == 1:
            yield self._step(num_images, inputs_BCHW, labels_B, epsilon, random)
            return
        # The published code cuts even parts and leaves the rest of the batch out.
        size = min(self.group.share.sizes(num_images)) // num_parts
        for start in range(0, num_parts * size, size) if size else ():
            part = slice(start, start + size)
            yield self._step(size * self.group.num_processes, inputs_BCHW[part], labels_B[part], epsilon, random)

    def _step(
        self, num_images: int, inputs_BCHW: Tensor, labels_B: Tensor, epsilon: float, random: Randomness
    ) -> Tensor:
        """One step of Pseudocode 1 (Salman et al. 2019): the attack's noise is the step's noise."""
        spec, group = self.spec, self.group
        noise_MBCHW = self._noise(num_images, inputs_BCHW, random.shared)
        inputs_BCHW = self._attacked(inputs_BCHW, labels_B, noise_MBCHW, epsilon, random)
        noisy_RCHW = (inputs_BCHW + noise_MBCHW).flatten(0, 1)
        with torch.autocast(noisy_RCHW.device.type, torch.bfloat16, enabled=self._is_mixed):
            logits_RK = self.replica(noisy_RCHW.contiguous(memory_format=torch.channels_last))
        logits_RK = logits_RK.to(noisy_RCHW.dtype)  # the loss is in float32
        labels_R = labels_B.repeat(spec.m_train)
        loss_sum = nn.functional.cross_entropy(logits_RK, labels_R, reduction="sum")
        # Gradients are averaged over processes, and the loss is the mean over the global batch.
        loss = loss_sum * (group.num_processes / (num_images * spec.m_train))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        group.copy_buffers(self.classifier)
        num_correct = (logits_RK.argmax(dim=1) == labels_R).sum()
        return torch.stack([loss_sum.detach(), num_correct, torch.full_like(loss_sum, len(labels_R))])

    def _noise(self, num_images: int, inputs_BCHW: Tensor, generator: torch.Generator) -> Tensor:
        """This process's noise: all processes draw that of all, so that no two of them have the same.

        On a CPU, what torch draws share by share is what it draws at once where each share is a
        multiple of 16 numbers: then the noise is the same for any number of processes.
        """
        spec, mine = self.spec, torch.empty(0)
        if spec.sigma == 0:
            return torch.zeros_like(inputs_BCHW).unsqueeze(0)
        for rank, size in enumerate(self.group.share.sizes(num_images)):
            shape = (size, spec.m_train, *inputs_BCHW.shape[1:])
            drawn = torch.randn(shape, generator=generator, device=inputs_BCHW.device)
            if rank == self.group.rank:
                mine = drawn
        return spec.sigma * mine.transpose(0, 1)

    def _attacked(
        self, inputs_BCHW: Tensor, labels_B: Tensor, noise_MBCHW: Tensor, epsilon: float, random: Randomness
    ) -> Tensor:
        spec, classifier = self.spec, self._attacked_fast
        if spec.method == "gaussian":
            return inputs_BCHW
        if spec.method == "vanilla_noise":  # the attack does not see the noise
            noise_MBCHW = torch.zeros_like(noise_MBCHW[:1])
        self.attacked.refresh()
        attack: Callable[..., Tensor] = smoothadv_pgd
        if spec.attack == "ddn":
            attack = functools.partial(smoothadv_ddn, initial_norm=spec.ddn_initial_norm)
        return attack(
            classifier,
            inputs_BCHW,
            labels_B,
            noise_MBCHW,
            epsilon=epsilon,
            num_steps=spec.num_steps,
            generator=random.own,
            estimator=gradient_estimator(spec.attack, sigma=spec.sigma, inverse_temperature=spec.inverse_temperature),
        )
