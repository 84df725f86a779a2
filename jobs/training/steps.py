"""One training step: draw noise, perturb, descend.

Shapes: B images, M noise draws, C H W image, R = M * B rows, K classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from jobs.networks.classifier import Classifier
from jobs.networks.folding import FoldedClassifier
from jobs.networks.inference import compiled
from jobs.specs.train import TrainSpec
from jobs.specs.units import Compile
from jobs.training.builtin import objective_of, perturbation_of
from jobs.training.distributed import Group
from jobs.training.feeding import ImageBatch
from jobs.training.method import Batch, Objective, Perturbation, checked_batch, checked_losses


@dataclass(frozen=True, kw_only=True, eq=False)
class Epoch:
    """The settings of one epoch."""

    number: int  # counted from 0
    epsilon: float  # the attack's radius
    shared: torch.Generator  # generator on the device, in the same state in all processes, which draw the same from it
    own: torch.Generator  # this process's own, for the direction of the attack where the gradient vanishes


class StepNetworks:
    """``Networks`` of one training, step after step."""

    # The classifier as attacks see it: statistics frozen and folded into convolutions, parameters without gradients.
    # Brought up to date by the first call of ``frozen`` in a step.
    attacked: FoldedClassifier
    noisy_MBK: Tensor | None  # logits of the step's last call of ``noisy_logits``, without gradients; None before one

    def __init__(
        self, classifier: Classifier, replica: nn.Module, dtype: torch.dtype | None, compile: Compile = False
    ) -> None:
        """For a classifier and its replica (``Group.replicated``), the network's arithmetic in ``dtype`` if given."""
        classifier.train().to(memory_format=torch.channels_last)
        # Weights in bfloat16 at once: autocast would convert them from float32 in each pass of the attack.
        self.attacked = FoldedClassifier(classifier, dtype)
        self._fast = compiled(self.attacked, compile)
        # In the default mode: CUDA graphs, those of other modes, would overwrite logits that a step still needs.
        self._replica, self._dtype = compiled(replica, bool(compile)), dtype
        self.begin_step()

    def begin_step(self) -> None:
        """The weights have changed."""
        self._is_current, self.noisy_MBK = False, None

    def noisy_logits(self, batch: Batch) -> Tensor:
        logits_RK = self.logits((batch.inputs_BCHW + batch.noise_MBCHW).flatten(0, 1))
        logits_MBK = logits_RK.reshape(*batch.noise_MBCHW.shape[:2], -1)
        self.noisy_MBK = logits_MBK.detach()
        return logits_MBK

    def logits(self, inputs_BCHW: Tensor) -> Tensor:
        with torch.autocast(inputs_BCHW.device.type, self._dtype or torch.bfloat16, enabled=self._dtype is not None):
            logits_BK: Tensor = self._replica(inputs_BCHW.contiguous(memory_format=torch.channels_last))
        return logits_BK.to(inputs_BCHW.dtype)  # losses are in float32

    def frozen(self, inputs_BCHW: Tensor) -> Tensor:
        if not self._is_current:
            self.attacked.refresh()
            self._is_current = True
        logits_BK: Tensor = self._fast(inputs_BCHW)
        return logits_BK


@dataclass(kw_only=True, eq=False)
class Stepper:
    """Takes the steps of one training."""

    spec: TrainSpec  # how
    classifier: Classifier  # what is trained
    replica: nn.Module  # the classifier, with gradients averaged over all processes
    optimizer: torch.optim.Optimizer  # of its parameters
    group: Group  # the processes
    compile: Compile = False  # whether torch.compile fuses the networks' operations, forward and backward
    networks: StepNetworks = field(init=False)  # the views of the classifier for its method
    perturbation: Perturbation = field(init=False)  # the method's, from the spec
    objective: Objective = field(init=False)  # likewise

    def __post_init__(self) -> None:
        dtype = torch.bfloat16 if self.spec.precision == "bfloat16" else None
        self.networks = StepNetworks(self.classifier, self.replica, dtype, self.compile)
        self.perturbation, self.objective = perturbation_of(self.spec), objective_of(self.spec)

    def steps(self, images: ImageBatch, epoch: Epoch) -> Iterator[Tensor]:
        """The optimizer steps on one batch: one, or with ``sub_batches`` one for each of m parts.

        Yields:
            For each step, over this process's rows: summed loss, number correct (nan where the
            objective never asked for noisy logits) and number of rows, shape (3,), on the device.
        """
        num_parts = self.spec.m_train if self.spec.multi_noise == "sub_batches" else 1
        if num_parts == 1:
            yield self._step(images, epoch)
            return
        # The published code cuts even parts and leaves the rest of the batch out.
        size = min(self.group.sizes(images.num_images)) // num_parts
        for start in range(0, num_parts * size, size) if size else ():
            yield self._step(images.part(start, size, num_processes=self.group.num_processes), epoch)

    def _step(self, images: ImageBatch, epoch: Epoch) -> Tensor:
        """One step of Pseudocode 1 (Salman et al. 2019): the perturbation's noise is the step's noise."""
        self.networks.begin_step()
        batch = Batch(
            inputs_BCHW=images.inputs_BCHW,
            labels_B=images.labels_B,
            noise_MBCHW=self._noise(images.num_images, images.inputs_BCHW, epoch.shared),
            indices_B=images.indices_B,
            sigma=self.spec.sigma,
            epsilon=epoch.epsilon,
            epoch=epoch.number,
            num_epochs=self.spec.epochs,
        )
        batch = checked_batch(self.perturbation(self.networks, batch, epoch.own), batch, self.perturbation)
        losses = checked_losses(self.objective(self.networks, batch, epoch.own), batch, self.objective)
        loss_sum, num_losses_each = _summed(losses), losses.numel() // len(batch.labels_B)
        # Gradients are averaged over processes, and the loss is the mean over the global batch.
        loss = loss_sum * (self.group.num_processes / (images.num_images * num_losses_each))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.spec.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.classifier.parameters(), self.spec.clip_norm)
        self.optimizer.step()
        self.group.copy_buffers(self.classifier)
        num_rows = len(batch.labels_B) * len(batch.noise_MBCHW)
        loss_sum = loss_sum.detach() * (num_rows / losses.numel())
        return torch.stack([loss_sum, self._num_correct(batch, loss_sum), torch.full_like(loss_sum, num_rows)])

    def _num_correct(self, batch: Batch, like: Tensor) -> Tensor:
        logits_MBK = self.networks.noisy_MBK
        if logits_MBK is None:
            return torch.full_like(like, torch.nan)
        return (logits_MBK.argmax(dim=-1) == batch.labels_B).sum()

    def _noise(self, num_images: int, inputs_BCHW: Tensor, generator: torch.Generator) -> Tensor:
        """This process's share of the noise: every process draws the global batch's noise and keeps its share.

        On a CPU, what torch draws share by share is what it draws at once where each share is a
        multiple of 16 numbers: then the noise is the same for any number of processes.
        """
        spec, mine = self.spec, torch.empty(0)
        if spec.sigma == 0:
            return torch.zeros_like(inputs_BCHW).unsqueeze(0)
        for rank, size in enumerate(self.group.sizes(num_images)):
            shape = (size, spec.m_train, *inputs_BCHW.shape[1:])
            drawn = torch.randn(shape, generator=generator, device=inputs_BCHW.device)
            if rank == self.group.rank:
                mine = drawn
        return spec.sigma * mine.transpose(0, 1)


def _summed(losses: Tensor) -> Tensor:
    """The sum of all losses, added in the order in which torch's ``cross_entropy`` adds: to the last bit its sum."""
    losses_R1 = losses.reshape(-1, 1)
    return nn.functional.nll_loss(-losses_R1, torch.zeros_like(losses_R1[:, 0], dtype=torch.int64), reduction="sum")
