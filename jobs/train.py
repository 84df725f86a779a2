"""Training of one base classifier; resumes from its last epoch, bit for bit."""

import logging
import math
import shutil
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from jobs.atomic import write_atomically
from jobs.datasets import load_images
from jobs.errors import CheckpointError, TrainingDivergedError
from jobs.files.manifest import write_spec
from jobs.files.store import Store
from jobs.host import num_tasks
from jobs.networks import checkpoint, pretrained
from jobs.networks.classifier import Classifier, classifier_for, is_finite_on_grey
from jobs.plugins import settings
from jobs.processes import interrupt
from jobs.processes.device import device_name, set_up_device
from jobs.specs.train import TrainSpec, train_fields
from jobs.specs.units import Compile, Resources, TrainUnit
from jobs.training.distributed import Group, run_in_processes, scheduled_group
from jobs.training.feeding import Loader, epoch_batches, make_loader
from jobs.training.schedules import epsilon_at, learning_rate_at
from jobs.training.steps import Epoch, Stepper

_Row = dict[str, Any]  # of epochs.parquet


def run(unit: TrainUnit, store: Store, resources: Resources) -> None:
    """Train a classifier, or resume its training, until its checkpoint exists.

    With ``num_processes`` above 1, the tasks of a SLURM job train it together, or processes started here.

    Raises:
        TrainingDivergedError: The loss became nan or infinite. The states before that epoch stay.
        DataError: Images are broken; named before the first epoch.
        CheckpointError: The weights that are to be taken, or to begin with, are not sound.
        ConfigError: A plug-in cannot be used; with file and line.
    """
    spec = unit.train
    if store.is_trained(spec.key):
        logging.info("already trained: %s", store.checkpoint_path(spec.key))
        return
    device = set_up_device(resources)
    if spec.is_taken:
        write_spec(store, spec)
        pretrained.import_checkpoint(spec, store)
    elif spec.num_processes == 1:
        train_as(Group(), spec, store, resources)
    elif num_tasks() > 1:
        with scheduled_group(spec.num_processes, device) as group:
            train_as(group, spec, store, resources)
    else:
        run_in_processes(train_as, spec.num_processes, device.type, spec, store, resources)


def train_as(group: Group, spec: TrainSpec, store: Store, resources: Resources) -> None:
    """The work of one process of a training; the first process writes the files."""
    device = set_up_device(resources)
    if group.is_first:
        write_spec(store, spec)
    stepper, history = _begin_or_resume(group, spec, store, device, resources.compile_training)
    info = spec.info
    loader = make_loader(load_images(spec.source, "train", resources.data), info.augmentation, device)
    while len(history) < spec.epochs:
        if group.any(interrupt.was_asked(), device):
            raise interrupt.Interrupted
        with settings.kept():  # the same at the start of an epoch, whether the training was resumed or not
            row = _train_epoch(stepper, len(history), loader, device)
        history.append(row)
        logging.info("epoch %(epoch)d: loss %(loss).4f, accuracy %(accuracy).3f, %(elapsed_s).1f s", row)
        # The loss was taken before the last step, which may have ruined the weights.
        if not (math.isfinite(row["loss"]) and is_finite_on_grey(stepper.classifier, info)):
            raise TrainingDivergedError(_divergence_message(spec, store, row["epoch"]))
        if group.is_first:
            try:
                _save_state(stepper, history, store)
            except (FileNotFoundError, CheckpointError):  # another process has finished and removed the folder
                if not store.is_trained(spec.key):
                    raise
        if group.any(store.is_trained(spec.key), device):
            logging.info("another process finished first; keeping its checkpoint")
            break
    else:
        if group.is_first:
            _finish(stepper, history, store)
    if group.is_first:
        shutil.rmtree(store.state_dir(spec.key), ignore_errors=True)
    group.wait_for_all()


def _begin_or_resume(
    group: Group, spec: TrainSpec, store: Store, device: torch.device, compile: Compile
) -> tuple[Stepper, list[_Row]]:
    """The stepper, and the statistics of finished epochs."""
    torch.manual_seed(spec.seed)
    classifier = classifier_for(spec) if spec.checkpoint_sha256 is None else pretrained.load_source(spec, store)
    # Before replication, which fixes the layout in which gradients are averaged.
    classifier.to(device).to(memory_format=torch.channels_last)
    optimizer = _optimizer(classifier, spec)
    history: list[_Row] = []
    for epoch in reversed(store.saved_epochs(spec.key)):
        path = store.state_path(spec.key, epoch)
        try:
            state = checkpoint.load(path)
            checkpoint.check_spec(path, state.get("spec"), spec)
            checkpoint.check_plugins(path, state, spec)
        except CheckpointError as error:
            logging.warning("%s; trying the previous state", error)
            continue
        classifier.load_state_dict(state["state_dict"])
        optimizer.load_state_dict(state["optimizer"])
        history = state["history"]
        logging.info("resuming after epoch %d", epoch)
        break
    group.wait_for_all()  # no process writes a state before all have read the same one
    replica = group.replicated(classifier, device)
    return Stepper(
        spec=spec, classifier=classifier, replica=replica, optimizer=optimizer, group=group, compile=compile
    ), history


def _optimizer(classifier: Classifier, spec: TrainSpec) -> torch.optim.Optimizer:
    parameters, learning_rate, decay = classifier.parameters(), spec.learning_rate, spec.weight_decay
    if spec.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=decay)
    return torch.optim.SGD(parameters, lr=learning_rate, momentum=spec.momentum, weight_decay=decay)


def _train_epoch(stepper: Stepper, epoch: int, loader: Loader, device: torch.device) -> _Row:
    spec, group, started = stepper.spec, stepper.group, time.monotonic()
    settings, learning_rate = _epoch(spec, epoch, group, device), learning_rate_at(spec, epoch)
    for parameters in stepper.optimizer.param_groups:
        parameters["lr"] = learning_rate
    stepper.classifier.train()
    # Sums stay on the device: reading them in every step would make it wait for the host.
    sums = torch.zeros(3, device=device)
    for images in epoch_batches(loader, spec.batch_size, settings.shared, group):
        if group.num_processes == 1:  # several would wait for each other in the middle of a step
            interrupt.stop_if_asked()  # the state after the last epoch is on the disk
        for step_sums in stepper.steps(images, settings):
            sums += step_sums
    loss, num_correct, num_rows = group.summed(sums).tolist()
    return {
        "epoch": epoch,
        "learning_rate": learning_rate,
        "epsilon": settings.epsilon,
        "loss": loss / num_rows,
        "accuracy": num_correct / num_rows,
        "elapsed_s": time.monotonic() - started,
    }


def _epoch(spec: TrainSpec, epoch: int, group: Group, device: torch.device) -> Epoch:
    """The settings of one epoch; its randomness depends only on (seed, epoch), so no generator state is saved."""
    sequence = np.random.SeedSequence((spec.seed, epoch))
    shared, *own = (int(child.generate_state(1, np.uint32)[0]) for child in sequence.spawn(1 + group.num_processes))
    torch.manual_seed(own[group.rank])  # for architectures that draw themselves, such as dropout
    return Epoch(
        number=epoch,
        epsilon=epsilon_at(spec, epoch),
        shared=torch.Generator(device=device).manual_seed(shared),
        own=torch.Generator(device=device).manual_seed(own[group.rank]),
    )


def _save_state(stepper: Stepper, history: list[_Row], store: Store) -> None:
    content = {
        "format": checkpoint.FORMAT,
        "spec": train_fields(stepper.spec),
        "state_dict": stepper.classifier.state_dict(),
        "optimizer": stepper.optimizer.state_dict(),
        "history": history,
        **checkpoint.plugins_of(stepper.spec),
    }
    key = stepper.spec.key
    checkpoint.save(store.state_path(key, len(history)), content)
    for epoch in store.saved_epochs(key)[:-2]:  # if the newest cannot be read, the previous one is used
        store.state_path(key, epoch).unlink(missing_ok=True)


def _finish(stepper: Stepper, history: list[_Row], store: Store) -> None:
    device = next(stepper.classifier.parameters()).device
    spec, table = stepper.spec, pa.Table.from_pylist(history)
    table = table.replace_schema_metadata({"device": device_name(device)})
    write_atomically(
        store.epochs_path(spec.key),
        lambda temporary: pq.write_table(table, temporary, write_page_checksum=True),
        pq.read_table,
        replace=False,
    )
    # The checkpoint is written last, before cleaning up: if it exists, training is done.
    checkpoint.save_classifier(store.checkpoint_path(spec.key), stepper.classifier, spec)


def _divergence_message(spec: TrainSpec, store: Store, epoch: int) -> str:
    saved, kept = store.saved_epochs(spec.key), "nothing was saved"
    if saved:
        kept = f"the state after {saved[-1]} epochs is kept in {store.state_dir(spec.key)}"
    return (
        f"training diverged in epoch {epoch} (counted from 0): loss or logits are not finite; {kept}. "
        f"A smaller train.learning_rate than {spec.learning_rate} usually helps; it makes another model"
    )
