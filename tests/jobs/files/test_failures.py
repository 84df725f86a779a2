import errno
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from jobs.errors import (
    CheckpointError,
    ConfigError,
    DiskFullError,
    FailedElsewhereError,
    RecordError,
    TrainingDivergedError,
)
from jobs.files import failures
from jobs.files.store import Store
from jobs.plugins.loading import described
from jobs.processes import worker
from jobs.specs.indices import IndexRange
from jobs.specs.units import AggregateUnit, ShardUnit, TrainUnit, Unit
from tests.jobs.units import PGD_RUN, RESOURCES

SHARD = ShardUnit(run=PGD_RUN, indices=IndexRange(start=0, stop=7))
UNITS: list[Unit] = [TrainUnit(train=PGD_RUN.train), SHARD, AggregateUnit(grid="tiny")]


@pytest.mark.parametrize(
    ("error", "failure_class"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "cuda_oom"),
        (torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be ..."), "cuda_oom"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "cuda_oom"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), "cuda_oom"),
        (
            RuntimeError("ncclUnhandledCudaError: Call to CUDA function failed.\nCuda failure 2 'out of memory'"),
            "cuda_oom",
        ),
        (RuntimeError("Found no NVIDIA driver on your system."), "node_fail"),
        (RuntimeError("No CUDA GPUs are available"), "node_fail"),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), "bug"),
        (MemoryError(), "host_oom"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (DiskFullError(errno.ENOSPC, "the disk or quota is full"), "disk_full"),
        (OSError(errno.EIO, "Input/output error"), "data"),
        (RecordError("x"), "data"),
        (CheckpointError("x"), "data"),
        (TrainingDivergedError("x"), "data"),
        (ConfigError(["x"]), "config"),
        (ZeroDivisionError(), "bug"),
    ],
)
def test_errors_have_a_class(error: Exception, failure_class: str) -> None:
    assert failures.classify(error) == failure_class


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stage)
def test_attempts_are_counted_per_unit(tmp_path: Path, unit: Unit) -> None:
    store = Store(tmp_path)
    for message in ("first", "second"):
        failures.record_death(store, unit, "unknown", message, tmp_path / "log")
    recorded = failures.failures_of(store, unit)
    assert [(failure.attempt, failure.message) for failure in recorded] == [(1, "first"), (2, "second")]
    assert {failure.unit for failure in recorded} == {unit.name}
    others = [other for other in UNITS if other is not unit]
    assert not any(failures.failures_of(store, other) for other in others)


@pytest.mark.parametrize(("rank", "num_recorded"), [("0", 1), ("1", 0)])
def test_of_the_tasks_of_a_job_only_the_first_writes(
    rank: str, num_recorded: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("SUBMITIT_EXECUTOR", "slurm"), ("SLURM_STEP_NUM_TASKS", "2"), ("SLURM_PROCID", rank)):
        monkeypatch.setenv(name, value)
    store = Store(tmp_path)
    with pytest.raises(CheckpointError if rank == "0" else FailedElsewhereError):
        worker.execute(SHARD, store, RESOURCES, tmp_path / "a.log")
    assert len(failures.failures_of(store, SHARD)) == num_recorded


def test_the_worker_writes_down_what_ended_a_unit(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(CheckpointError):
        worker.execute(SHARD, store, RESOURCES, tmp_path / "a.log")
    (failure,) = failures.failures_of(store, SHARD)
    assert failure.failure_class == "data"
    assert "no such checkpoint" in failure.message
    assert "Traceback" in failure.traceback
    assert failure.log_path == str(tmp_path / "a.log")
    assert failures.last_failures(store.failures_dir(PGD_RUN.train.key), lambda _: True) == {SHARD.name: failure}


def test_a_damaged_failure_record_is_an_attempt_all_the_same(tmp_path: Path) -> None:
    store = Store(tmp_path)
    failures.record_death(store, SHARD, "unknown", "first", tmp_path / "log")
    (path,) = tmp_path.rglob("*-attempt-0001.json")
    path.write_text(path.read_text()[:40])
    (failure,) = failures.failures_of(store, SHARD)
    assert failure.attempt == 1
    assert f"{path}: this record of a failure cannot be read" in failure.message


def test_the_last_failure_counts_the_earlier_ones(tmp_path: Path) -> None:
    """Also where an earlier version wrote some of them, or one is damaged."""
    store = Store(tmp_path)
    classes: list[failures.FailureClass] = ["bug", "timeout", "bug", "host_oom"]
    for number, failure_class in enumerate(classes):
        failures.record_death(store, SHARD, failure_class, "it failed", tmp_path / "log")
        failures.record_death(store, UNITS[0], "data", "it failed", tmp_path / "log")
        last = failures.last_failure(store, SHARD)
        assert last is not None
        assert (last.attempt, last.counts) == (number + 1, Counter(classes[: number + 1]))
    for path in tmp_path.rglob("certify-*.json"):
        content = json.loads(path.read_text())
        del content["earlier"]
        path.write_text(json.dumps(content))
    last = failures.last_failure(store, SHARD)
    assert last is not None
    assert last.counts == Counter(classes)
    (path,) = tmp_path.rglob("certify-*-attempt-0004.json")
    path.write_text("{")
    last = failures.last_failure(store, SHARD)
    assert last is not None
    assert last.counts == Counter([*classes[:3], "unknown"])
    failures.forget(store, SHARD)
    assert failures.last_failure(store, SHARD) is None
    assert failures.last_failure(store, UNITS[0]) is not None


def test_a_record_that_was_removed_does_not_let_the_next_overwrite_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for message in ("first", "second"):
        failures.record_death(store, SHARD, "unknown", message, tmp_path / "log")
    next(tmp_path.rglob("*-attempt-0001.json")).unlink()
    failures.record_death(store, SHARD, "unknown", "third", tmp_path / "log")
    assert [failure.message for failure in failures.failures_of(store, SHARD)] == ["second", "third"]


@pytest.mark.parametrize(("unit", "option"), [(SHARD, "cluster.batch_size"), (UNITS[0], "cluster.runs_per_gpu")])
def test_a_full_gpu_says_what_to_do(unit: Unit, option: str, tmp_path: Path) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory")
    failure = failures.record_exception(Store(tmp_path), unit, error, described(error), tmp_path)
    assert failure.message.startswith("OutOfMemoryError: CUDA out of memory\n")
    assert f"reduce {option}" in failure.message


def test_a_death_on_a_full_disk_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=40 * 1024))
    death = failures.record_death(Store(tmp_path), SHARD, "unknown", "the process exited with code 1", tmp_path / "log")
    assert death.failure_class == "disk_full"
    assert death.message == f"the process exited with code 1; the disk of {tmp_path} has 40 KB free"
    killed = failures.record_death(Store(tmp_path), SHARD, "host_oom", "killed", tmp_path / "log")
    assert killed.failure_class == "host_oom"
