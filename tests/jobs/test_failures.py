from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jobs import failures, worker
from jobs.errors import CheckpointError, ConfigError, RecordError, TrainingDivergedError
from jobs.indices import IndexRange
from jobs.store import Store
from jobs.units import AggregateUnit, CertifyUnit, TrainUnit, Unit
from tests.jobs.units import PGD_RUN, RESOURCES

SHARD = CertifyUnit(run=PGD_RUN, indices=IndexRange(start=0, stop=7))
UNITS: list[Unit] = [TrainUnit(train=PGD_RUN.train), SHARD, AggregateUnit(grid="tiny")]


@pytest.mark.parametrize(
    ("error", "failure_class"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "cuda_oom"),
        (MemoryError(), "host_oom"),
        (OSError(28, "No space left on device"), "data"),
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


def test_the_worker_writes_down_what_ended_a_unit(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(CheckpointError):
        worker.execute(SHARD, store, RESOURCES, tmp_path / "a.log")
    (failure,) = failures.failures_of(store, SHARD)
    assert failure.failure_class == "data"
    assert "no such checkpoint" in failure.message
    assert "Traceback" in failure.traceback
    assert failure.log_path == str(tmp_path / "a.log")
    assert store.failed_shards(PGD_RUN.train.key, PGD_RUN.certify.key) == [SHARD.indices]
