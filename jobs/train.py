"""Training of one base classifier, resumable after every epoch with the same bits.

Shapes: B images, M noise draws, C H W image.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from jobs import checkpoint, interrupt
from jobs.atomic import remove_stale_temporaries, write_atomically, write_json
from jobs.datasets import dataset_info, load_images
from jobs.device import set_up_device
from jobs.errors import CheckpointError, TrainingDivergedError
from jobs.models import Classifier, build_classifier
from jobs.specs import TrainSpec
from jobs.store import Store
from jobs.units import Resources, TrainUnit
from smoothing.attacks import smoothadv_pgd

_STATES_KEPT = 2  # should the newest be unreadable, the one before it still serves


def run(unit: TrainUnit, store: Store, resources: Resources) -> None:
    """Train a classifier, or go on with it, until its checkpoint is there.

    Raises:
        TrainingDivergedError: The loss became nan or infinite. The states before that epoch stay.
    """
    spec = unit.train
    if store.is_trained(spec.key):
        logging.info("already trained: %s", store.checkpoint_path(spec.key))
        return
    remove_stale_temporaries(store.run_dir(spec.key))
    write_json(store.spec_path(spec.key), {"key": spec.key, **asdict(spec)})
    device = set_up_device(resources)
    trainer = _begin_or_resume(spec, store, device)
    images = load_images(spec.dataset, "train")
    inputs_NCHW = torch.from_numpy(images.inputs).to(device)
    labels_N = torch.from_numpy(images.labels).to(device)
    while trainer.next_epoch < spec.epochs:
        _train_epoch(trainer, spec, inputs_NCHW, labels_N)
        row = trainer.history[-1]
        logging.info("epoch %(epoch)d: loss %(loss).4f, accuracy %(accuracy).3f, %(elapsed_s).1f s", row)
        if not math.isfinite(row["loss"]):
            raise TrainingDivergedError(_divergence_message(spec, store, row["epoch"]))
        _save_state(trainer, spec, store)
        if store.is_trained(spec.key):
            logging.info("another copy of this unit was faster, its checkpoint stays")
            break
    else:
        _finish(trainer, spec, store)
    shutil.rmtree(store.state_dir(spec.key), ignore_errors=True)


def epsilon_at(spec: TrainSpec, epoch: int) -> float:
    """The attack radius of an epoch: 0 in the first, full from ``warmup_epochs`` on, linear between.

    Source:
        Salman et al. 2019, appendix on training (warm-up over ten epochs).
    """
    if epoch >= spec.warmup_epochs:
        return spec.epsilon
    return spec.epsilon * epoch / spec.warmup_epochs


def learning_rate_at(spec: TrainSpec, epoch: int) -> float:
    """The learning rate of an epoch: a step down by ``lr_gamma`` every ``lr_step_epochs``."""
    return spec.learning_rate * spec.lr_gamma ** (epoch // spec.lr_step_epochs)


@dataclass(kw_only=True, eq=False)
class _Trainer:
    """What changes during training; everything random is derived from (seed, epoch)."""

    classifier: Classifier
    optimizer: torch.optim.Optimizer
    next_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


def _begin_or_resume(spec: TrainSpec, store: Store, device: torch.device) -> _Trainer:
    torch.manual_seed(spec.seed)
    classifier = build_classifier(spec.architecture, dataset_info(spec.dataset)).to(device)
    optimizer = torch.optim.SGD(
        classifier.parameters(), lr=spec.learning_rate, momentum=spec.momentum, weight_decay=spec.weight_decay
    )
    trainer = _Trainer(classifier=classifier, optimizer=optimizer)
    for epoch in reversed(store.saved_epochs(spec.key)):
        path = store.state_path(spec.key, epoch)
        try:
            state = checkpoint.load(path)
            checkpoint.check_spec(path, state.get("spec"), spec)
        except CheckpointError as error:
            logging.warning("%s; trying the state before it", error)
            continue
        classifier.load_state_dict(state["state_dict"])
        optimizer.load_state_dict(state["optimizer"])
        trainer.next_epoch, trainer.history = epoch, state["history"]
        logging.info("going on after epoch %d", epoch)
        break
    return trainer


def _train_epoch(trainer: _Trainer, spec: TrainSpec, inputs_NCHW: Tensor, labels_N: Tensor) -> None:
    epoch, started = trainer.next_epoch, time.monotonic()
    generator = _epoch_generator(spec.seed, epoch, inputs_NCHW.device)
    epsilon, learning_rate = epsilon_at(spec, epoch), learning_rate_at(spec, epoch)
    for group in trainer.optimizer.param_groups:
        group["lr"] = learning_rate
    # Sums stay on the device: reading them in every step would make it wait for the host.
    total_loss, total_correct = (torch.zeros((), device=inputs_NCHW.device) for _ in range(2))
    total_seen = 0
    for batch_B in _batches(len(labels_N), spec.batch_size, generator):
        interrupt.stop_if_asked()  # the state after the last epoch is on the disk
        loss, correct = _train_step(trainer, spec, inputs_NCHW[batch_B], labels_N[batch_B], epsilon, generator)
        total_loss, total_correct = total_loss + loss, total_correct + correct
        total_seen += len(batch_B) * spec.m_train
    trainer.history.append(
        {
            "epoch": epoch,
            "learning_rate": learning_rate,
            "epsilon": epsilon,
            "loss": float(total_loss) / total_seen,
            "accuracy": float(total_correct) / total_seen,
            "elapsed_s": time.monotonic() - started,
        }
    )
    trainer.next_epoch = epoch + 1


def _train_step(
    trainer: _Trainer,
    spec: TrainSpec,
    inputs_BCHW: Tensor,
    labels_B: Tensor,
    epsilon: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """One step of Pseudocode 1 (Salman et al. 2019): the attack's noise is the step's noise.

    Returns:
        Summed loss and number of correct rows over all M * B noisy inputs, on the device.
    """
    noise_shape = (spec.m_train, *inputs_BCHW.shape)
    noise_MBCHW = spec.sigma * torch.randn(noise_shape, generator=generator, device=inputs_BCHW.device)
    if spec.attack == "pgd":
        inputs_BCHW = _attacked(trainer.classifier, spec, inputs_BCHW, labels_B, noise_MBCHW, epsilon, generator)
    logits_RK = trainer.classifier((inputs_BCHW + noise_MBCHW).flatten(0, 1))  # R = M * B rows
    labels_R = labels_B.repeat(spec.m_train)
    loss = nn.functional.cross_entropy(logits_RK, labels_R)
    trainer.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    trainer.optimizer.step()
    return loss.detach() * len(labels_R), (logits_RK.argmax(dim=1) == labels_R).sum()


def _attacked(
    classifier: Classifier,
    spec: TrainSpec,
    inputs_BCHW: Tensor,
    labels_B: Tensor,
    noise_MBCHW: Tensor,
    epsilon: float,
    generator: torch.Generator,
) -> Tensor:
    classifier.eval().requires_grad_(False)  # the attack sees frozen statistics and leaves no gradients
    adversarial_BCHW = smoothadv_pgd(
        classifier,
        inputs_BCHW,
        labels_B,
        noise_MBCHW,
        epsilon=epsilon,
        num_steps=spec.num_steps,
        generator=generator,
    )
    classifier.train().requires_grad_(True)
    return adversarial_BCHW


def _epoch_generator(seed: int, epoch: int, device: torch.device) -> torch.Generator:
    """The randomness of one epoch, and nothing else, so that resuming needs no generator's state."""
    entropy = int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint32)[0])
    torch.manual_seed(entropy)  # for architectures that draw themselves, such as dropout
    return torch.Generator(device=device).manual_seed(entropy)


def _batches(num_images: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    order_N = torch.randperm(num_images, generator=generator, device=generator.device)
    yield from torch.split(order_N, batch_size)


def _save_state(trainer: _Trainer, spec: TrainSpec, store: Store) -> None:
    content = {
        "format": checkpoint.FORMAT,
        "spec": asdict(spec),
        "state_dict": trainer.classifier.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "history": trainer.history,
    }
    checkpoint.save(store.state_path(spec.key, trainer.next_epoch), content)
    for epoch in store.saved_epochs(spec.key)[:-_STATES_KEPT]:
        store.state_path(spec.key, epoch).unlink(missing_ok=True)


def _finish(trainer: _Trainer, spec: TrainSpec, store: Store) -> None:
    history = pa.Table.from_pylist(trainer.history)
    write_atomically(
        store.epochs_path(spec.key),
        lambda temporary: pq.write_table(history, temporary, write_page_checksum=True),
        pq.read_table,
        replace=False,
    )
    # The checkpoint comes last: where it is, training is done.
    checkpoint.save_classifier(store.checkpoint_path(spec.key), trainer.classifier, spec)


def _divergence_message(spec: TrainSpec, store: Store, epoch: int) -> str:
    saved = store.saved_epochs(spec.key)
    kept = f"the state after epoch {saved[-1]} is kept in {store.state_dir(spec.key)}" if saved else "nothing was saved"
    return (
        f"training of {spec.key} diverged: the loss of epoch {epoch} is not finite; {kept}. "
        f"A smaller train.learning_rate than {spec.learning_rate} usually helps (and makes another run)"
    )
