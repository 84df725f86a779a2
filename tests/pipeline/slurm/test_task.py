"""One task of an array: what it does when SLURM warns it."""

import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType
from unittest.mock import Mock

import pytest

from jobs.files.failures import failures_of, record_death
from jobs.files.store import Store
from jobs.specs.units import Resources, ShardUnit, TrainUnit
from pipeline.slurm import task
from pipeline.slurm.task import ArrayTask, draw_envelope
from pipeline.state.joblog import BEGAN_VARIABLE
from pipeline.state.ledger import Launch
from tests.grids import as_range, tiny_manifest

MANIFEST = tiny_manifest()


@pytest.fixture
def restart_count(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(request.param))
    return int(request.param)


@pytest.mark.parametrize(
    ("restart_count", "minutes", "limit", "is_in_vain"),
    [(0, 59, 60, False), (1, 5, 60, False), (1, 57, 60, True), (0, 1, 3, False), (1, 1, 3, True)],
    indirect=["restart_count"],
)
def test_a_second_time_limit_without_progress_is_a_failure(
    tmp_path: Path, restart_count: int, minutes: int, limit: int, is_in_vain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warned as SLURM warns it, in a signal's handler, before the first epoch is over."""
    store, unit = Store(tmp_path), TrainUnit(train=replace(MANIFEST.of("certify")[0].train, epochs=1000))
    launch = Launch(manifest=MANIFEST, resources=Resources(device="cpu"), grace_s=1)
    job = ArrayTask(store=store, grid="tiny", units=[unit], launch=launch, time_limit_min=limit)
    monkeypatch.setenv(BEGAN_VARIABLE, str(time.time() - 60 * minutes))
    again: list[bool] = []

    def handle(number: int, frame: FrameType | None) -> None:
        again.append(job.interrupt())

    monkeypatch.setattr(signal, "SIGUSR2", signal.SIGKILL)  # no epoch is as long as a limit: its process cannot save
    before = signal.signal(signal.SIGUSR1, handle)
    log_path = store.log_path("tiny", unit.name)
    threading.Thread(target=_warn_when_it_exists, args=(log_path,)).start()
    try:
        with pytest.raises(SystemExit):
            job()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert again == [not is_in_vain]
    messages = [(failure.failure_class, failure.message) for failure in failures_of(store, unit)]
    said = f"no progress within the time limit of {limit} min; raise cluster.train.time_min"
    assert messages == ([("timeout", said)] if is_in_vain else [])


def test_short_starts_without_progress_come_to_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Preempted each time before the first epoch is over."""
    store, unit = Store(tmp_path), TrainUnit(train=MANIFEST.of("certify")[0].train)
    log = tmp_path / "log"
    launch = Launch(manifest=MANIFEST, resources=Resources(device="cpu"), grace_s=1)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "7")
    monkeypatch.setenv(BEGAN_VARIABLE, str(time.time()))
    again = []
    for lines in ("", *(n * "x WARNING no progress since this start\n" for n in range(1, 5)), "x INFO end train/a\n"):
        log.write_text(lines)
        job = ArrayTask(store=store, grid="tiny", units=[unit], launch=launch, time_limit_min=60, log_path=log)
        item = Mock(unit=unit, log_path=log)
        monkeypatch.setattr(job, "_in_progress", [item])
        monkeypatch.setattr(job, "_progress", {unit.name: 0})
        again.append(job.interrupt())
    assert again == [True, True, True, True, False, True]
    (failure,) = failures_of(store, unit)
    assert (failure.failure_class, failure.message) == (
        "preempted",
        "no progress: SLURM ended 5 starts of the job early",
    )


def test_a_unit_waits_for_a_checkpoint_that_another_node_has_just_written(
    undisturbed_results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network file system hides it for a while."""
    results = tmp_path / "results"
    shutil.copytree(undisturbed_results, results)
    store, run = Store(results), MANIFEST.of("certify")[0]
    unit = ShardUnit(run=run, indices=as_range(run.indices))
    shutil.rmtree(store.shards_dir(run.place))
    checkpoint = store.checkpoint_path(run.train.key)
    hidden = checkpoint.rename(checkpoint.with_name("hidden"))
    threading.Timer(2.0, hidden.rename, [checkpoint]).start()
    launch = Launch(manifest=MANIFEST, resources=Resources(device="cpu"), grace_s=1)
    ArrayTask(store=store, grid="tiny", units=[unit], launch=launch, time_limit_min=60)()
    assert not store.unfinished(run.place, run.indices)
    assert failures_of(store, unit) == []


def test_a_unit_whose_checkpoint_never_comes_gives_up_in_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, run = Store(tmp_path), MANIFEST.of("certify")[0]
    unit = ShardUnit(run=run, indices=as_range(run.indices))
    launch = Launch(manifest=MANIFEST, resources=Resources(device="cpu"), grace_s=1)
    monkeypatch.setattr(task, "_NEED_PATIENCE_S", 0.5)
    with pytest.raises(SystemExit) as left:
        ArrayTask(store=store, grid="tiny", units=[unit], launch=launch, time_limit_min=60)()
    assert left.value.code == 1
    (failure,) = failures_of(store, unit)
    assert f"no checkpoint of {run.train.key}" in failure.message
    # Where the training is known to have failed, the unit is skipped at once, and has not failed itself.
    record_death(store, TrainUnit(train=run.train), "bug", "it failed", tmp_path / "log")
    monkeypatch.setattr(task, "_NEED_PATIENCE_S", 600)
    with pytest.raises(SystemExit) as left:
        ArrayTask(store=store, grid="tiny", units=[unit], launch=launch, time_limit_min=60)()
    assert left.value.code == 3
    assert len(failures_of(store, unit)) == 1


def test_a_unit_that_makes_no_progress_is_ended_and_its_job_queued_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, unit = Store(tmp_path), TrainUnit(train=replace(MANIFEST.of("certify")[0].train, epochs=1000))
    launch = Launch(manifest=MANIFEST, resources=Resources(device="cpu"), grace_s=1, stall_min=0.01)
    monkeypatch.setattr(task, "progress_of", lambda *_: 0)
    requeued = []
    monkeypatch.setattr(task, "requeue", lambda: requeued.append(True))
    for _ in range(2):
        with pytest.raises(SystemExit):
            ArrayTask(store=store, grid="tiny", units=[unit], launch=launch, time_limit_min=60)()
    assert [failure.failure_class for failure in failures_of(store, unit)] == ["stalled", "stalled"]
    assert "no progress for 0.01 min (cluster.stall_min)" in failures_of(store, unit)[0].message
    assert requeued == [True]  # the second time it waits for a person


def _warn_when_it_exists(path: Path) -> None:
    while not path.exists():
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGUSR1)


def test_the_envelope_is_drawn_into_any_results_folder(undisturbed_results: Path, tmp_path: Path) -> None:
    results = tmp_path / "run (1) of 'a', #2"
    shutil.copytree(undisturbed_results, results)
    Store(results).log_path("tiny", "envelope").parent.mkdir(parents=True, exist_ok=True)
    assert draw_envelope("tiny", Store(results)) == 0
    assert any(Store(results).envelope_dir("tiny").iterdir())
