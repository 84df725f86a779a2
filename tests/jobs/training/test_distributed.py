"""Several processes train one classifier as one process does."""

import copy
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from torch.distributed import HashStore

from jobs import train
from jobs.datasets import dataset_info, load_images
from jobs.errors import TrainingDivergedError
from jobs.files.failures import classify, failures_of
from jobs.files.store import Store
from jobs.host import rank
from jobs.networks import checkpoint
from jobs.networks.classifier import build_classifier
from jobs.plugins import Plugin, loading
from jobs.processes import interrupt, worker
from jobs.specs.train import TrainSpec
from jobs.specs.units import Resources, TrainUnit
from jobs.train import _epoch
from jobs.training.distributed import Group, _joined, run_in_processes
from jobs.training.feeding import epoch_batches, make_loader
from tests.trees import make_tree

pytestmark = pytest.mark.slow  # every test starts processes that import torch

SPEC = TrainSpec(
    dataset="cifar10_images",
    architecture="linear",
    method="smoothadv",
    attack="pgd",
    sigma=0.25,
    epsilon=0.5,
    m_train=2,
    num_steps=2,
    warmup_epochs=1,
    epochs=3,
    batch_size=15,
    learning_rate=0.01,
    lr_step_epochs=2,
    lr_gamma=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    num_processes=2,
    seed=0,
)


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> Resources:
    tree = make_tree(tmp_path_factory.mktemp("tree"), per_class={"train": 4, "test": 1})
    return Resources(device="cpu", data={"cifar10_images": str(tree)})


def _train(spec: TrainSpec, store: Store, resources: Resources) -> None:
    train.run(TrainUnit(train=spec), store, resources)


def _losses(spec: TrainSpec, store: Store) -> list[float]:
    losses: list[float] = pq.read_table(store.epochs_path(spec.key))["loss"].to_pylist()
    return losses


def _weights(spec: TrainSpec, store: Store) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = checkpoint.load(store.checkpoint_path(spec.key))["state_dict"]
    return weights


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, resources: Resources) -> Store:
    store = Store(tmp_path_factory.mktemp("undisturbed"))
    _train(SPEC, store, resources)
    return store


def test_two_processes_have_the_losses_of_one(undisturbed: Store, resources: Resources, tmp_path: Path) -> None:
    """Global batches of 15, 15 and 10: shares that do not come out even included."""
    one = replace(SPEC, num_processes=1)
    _train(one, Store(tmp_path), resources)
    # Sums of float32 in another order, through 9 steps of training.
    assert _losses(SPEC, undisturbed) == pytest.approx(_losses(one, Store(tmp_path)), rel=1e-4)
    ours, theirs = _weights(SPEC, undisturbed), _weights(one, Store(tmp_path))
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-5)


def test_a_plug_in_that_asks_the_network_twice_has_the_losses_of_one_process(
    resources: Resources, tmp_path: Path
) -> None:
    methods = Path(__file__).parents[3] / "examples" / "methods"
    own = replace(resources, plugins=str(methods))
    objective = Plugin(name="stability:Stability", options={"weight": 2.0})
    gaussian: dict[str, Any] = {
        "method": "gaussian",
        "attack": "none",
        "epsilon": 0.0,
        "num_steps": 0,
        "warmup_epochs": 0,
    }
    two = replace(SPEC, **gaussian, epochs=1, objective=objective)
    one = replace(two, num_processes=1)
    for spec in (one, two):
        _train(spec, Store(tmp_path), own)
    assert _losses(two, Store(tmp_path)) == pytest.approx(_losses(one, Store(tmp_path)), rel=1e-4)
    ours, theirs = _weights(two, Store(tmp_path)), _weights(one, Store(tmp_path))
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-5)
    loading.use(None)


def test_batch_normalisation_sees_each_process_share(tmp_path: Path, resources: Resources) -> None:
    """One step of noise augmentation against the same step by hand: halves forward, gradients averaged.

    That is what the published DataParallel training does with each GPU's part of the batch.
    """
    spec = replace(
        SPEC,
        architecture="cifar_resnet20",
        method="gaussian",
        attack="none",
        epsilon=0.0,
        m_train=1,
        num_steps=0,
        warmup_epochs=0,
        epochs=1,
        batch_size=40,
    )
    _train(spec, Store(tmp_path), resources)

    torch.manual_seed(spec.seed)
    info = dataset_info(spec.dataset)
    classifier = build_classifier(spec.architecture, info).train()
    random = _epoch(spec, 0, Group(), torch.device("cpu"))
    loader = make_loader(load_images(spec.dataset, "train", resources.data), info.augmentation, torch.device("cpu"))
    (images,) = epoch_batches(loader, spec.batch_size, random.shared, Group())
    inputs, labels = images.inputs_BCHW, images.labels_B
    noisy = inputs + spec.sigma * torch.randn(inputs.shape, generator=random.shared)
    replicas = [classifier, copy.deepcopy(classifier)]
    halves = [slice(0, 20), slice(20, 40)]
    losses = [
        nn.functional.cross_entropy(replica(noisy[half]), labels[half])
        for replica, half in zip(replicas, halves, strict=True)
    ]
    for loss in losses:
        loss.backward()  # type: ignore[no-untyped-call]
    assert _losses(spec, Store(tmp_path)) == pytest.approx([(losses[0].item() + losses[1].item()) / 2], rel=1e-5)
    found = _weights(spec, Store(tmp_path))
    for (name, first), second in zip(classifier.named_parameters(), replicas[1].parameters(), strict=True):
        assert first.grad is not None
        assert second.grad is not None
        gradient = (first.grad + second.grad) / 2 + spec.weight_decay * first
        torch.testing.assert_close(found[name], (first - spec.learning_rate * gradient).detach(), rtol=1e-3, atol=1e-5)
    for name, buffer in classifier.named_buffers():  # the first process's statistics are everybody's
        torch.testing.assert_close(found[name], buffer)


def test_killed_processes_leave_nothing_behind_and_go_on_to_the_same_bits(
    undisturbed: Store, resources: Resources, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    context = get_context("spawn")
    process = context.Process(target=_train, args=(replace(SPEC, epochs=3), store, resources))
    process.start()
    _await(lambda: bool(store.saved_epochs(SPEC.key)) or not process.is_alive())
    children = _children_of(process.pid or 0)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    _await(lambda: not any(_is_alive(pid) for pid in children))
    _train(SPEC, store, resources)
    ours, theirs = _weights(SPEC, store), _weights(SPEC, undisturbed)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert _losses(SPEC, store) == _losses(SPEC, undisturbed)


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_failure_of_one_process_is_the_failure_of_all(tmp_path: Path, resources: Resources) -> None:
    spec = replace(SPEC, learning_rate=1e30)
    with pytest.raises(TrainingDivergedError, match="training diverged in epoch"):
        _train(spec, Store(tmp_path), resources)
    assert not Store(tmp_path).is_trained(spec.key)


def _forward_without_others(group: Group) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(1)
    module = nn.Sequential(nn.Conv2d(1, 1, 1), norm)
    replica = group.replicated(module, torch.device("cpu"))
    if group.is_first:
        replica(torch.rand(4, 1, 2, 2))
    group.wait_for_all()
    assert norm.num_batches_tracked is not None
    assert int(norm.num_batches_tracked) == group.is_first


def test_a_forward_pass_sends_no_statistics() -> None:
    """They are copied after each step, once."""
    run_in_processes(_forward_without_others, 2, "cpu")


def _fail_second(group: Group) -> None:
    if group.rank == 1:
        raise torch.OutOfMemoryError("CUDA out of memory, of the second process")
    group.wait_for_all()


def test_the_error_that_came_first_is_the_one_that_is_raised() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="of the second process") as raised:
        run_in_processes(_fail_second, 2, "cpu")
    assert classify(raised.value) == "cuda_oom"
    assert "in process 1:" in "".join(raised.value.__notes__)


def _fail_second_as_with_nccl(group: Group) -> None:
    """NCCL's collectives wait for a process that has failed, and its orderly end waits for them."""
    pytest.MonkeyPatch().setattr(torch.distributed, "destroy_process_group", lambda: time.sleep(1000))
    if group.rank == 1:
        raise torch.OutOfMemoryError("CUDA out of memory, of the second process")
    time.sleep(1000)


def test_nobody_waits_for_a_process_that_failed() -> None:
    began = time.monotonic()
    with pytest.raises(torch.OutOfMemoryError, match="of the second process"):
        run_in_processes(_fail_second_as_with_nccl, 2, "cpu")
    assert time.monotonic() - began < 500


def test_a_process_joins_nccl_on_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch is asked for, in order: without a device NCCL would guess one, and warn, at the first barrier."""
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: asked.append((device,)))
    init = lambda backend, **options: asked.append((backend, options["device_id"], options["rank"]))  # noqa: E731
    monkeypatch.setattr(torch.distributed, "init_process_group", init)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: asked.append(("destroyed",)))
    gpu = torch.device("cuda", 1)
    with _joined(HashStore(), 3, 4, gpu) as group:
        assert (group.rank, group.num_processes) == (3, 4)
    assert asked == [(gpu,), ("nccl", gpu, 3), ("destroyed",)]


def _train_until_interrupted(spec: TrainSpec, store: Store, resources: Resources) -> None:
    interrupt.listen()
    try:
        _train(spec, store, resources)
    except interrupt.Interrupted:
        os._exit(76)


def test_a_request_to_stop_ends_all(resources: Resources, tmp_path: Path) -> None:
    store, spec = Store(tmp_path), replace(SPEC, epochs=500)
    process = get_context("spawn").Process(target=_train_until_interrupted, args=(spec, store, resources))
    process.start()
    _await(lambda: bool(store.saved_epochs(spec.key)) or not process.is_alive())
    children = _children_of(process.pid or 0)
    os.kill(process.pid or 0, signal.SIGUSR2)
    process.join()
    assert process.exitcode == 76
    assert not any(_is_alive(pid) for pid in children)
    assert store.saved_epochs(spec.key)
    assert not store.is_trained(spec.key)


class _Task:
    """One task of a SLURM job, by the variables that srun and submitit set."""

    def __init__(self, rank: int, act: Callable[..., None], *arguments: Any) -> None:
        variables = {
            "CUDA_VISIBLE_DEVICES": str(rank),
            "SUBMITIT_EXECUTOR": "slurm",
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_NTASKS": "2",
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_JOB_NODELIST": "127.0.0.1",
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank),
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            self.process = get_context("spawn").Process(target=act, args=arguments)
            self.process.start()

    def ask_to_stop(self) -> None:
        os.kill(self.process.pid or 0, signal.SIGUSR2)

    def join(self) -> int | None:
        self.process.join(120)
        return self.process.exitcode


def test_tasks_of_a_job_stop_together_when_one_is_asked(resources: Resources, tmp_path: Path) -> None:
    store, spec = Store(tmp_path), replace(SPEC, epochs=500)
    tasks = [_Task(rank, _train_until_interrupted, spec, store, resources) for rank in range(2)]
    _await(lambda: bool(store.saved_epochs(spec.key)) or not tasks[0].process.is_alive())
    tasks[1].ask_to_stop()
    assert [task.join() for task in tasks] == [76, 76]
    assert not store.is_trained(spec.key)


def _train_with_a_full_second_gpu(spec: TrainSpec, store: Store, resources: Resources) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    if rank() == 1:
        pytest.MonkeyPatch().setattr(train, "_train_epoch", full)
    worker.execute(TrainUnit(train=spec), store, resources, store.root / "unit.log")


def test_the_task_that_failed_first_writes_down_why_and_where(resources: Resources, tmp_path: Path) -> None:
    """It alone knows its node and GPU, and the others may hang in NCCL until they are ended."""
    store = Store(tmp_path)
    tasks = [_Task(rank, _train_with_a_full_second_gpu, SPEC, store, resources) for rank in range(2)]
    assert [task.join() for task in tasks] == [1, 1]
    (failure,) = failures_of(store, TrainUnit(train=SPEC))
    assert (failure.failure_class, failure.gpus, failure.attempt) == ("cuda_oom", "1", 1)
