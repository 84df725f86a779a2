"""One task of an array: what it does when SLURM warns it."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType

import pytest

from jobs.files.failures import failures_of
from jobs.files.store import Store
from jobs.specs.units import Resources, TrainUnit
from pipeline.slurm import task
from pipeline.slurm.task import ArrayTask, draw_envelope
from pipeline.state.ledger import Launch
from tests.grids import tiny_manifest

MANIFEST = tiny_manifest()
TIME_LIMIT_MIN = 60


@pytest.fixture
def restart_count(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(request.param))
    return int(request.param)


@pytest.mark.parametrize(
    ("restart_count", "minutes", "is_in_vain"),
    [(0, 59, False), (1, 5, False), (1, 59, True)],
    indirect=["restart_count"],
)
def test_a_second_time_limit_without_progress_is_a_failure(
    tmp_path: Path, restart_count: int, minutes: int, is_in_vain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warned as submitit warns it, in a signal's handler, before the first epoch is over."""
    store, unit = Store(tmp_path), TrainUnit(train=replace(MANIFEST.of("certify")[0].train, epochs=1000))
    limits = {"train": TIME_LIMIT_MIN}
    launch = Launch(manifest=MANIFEST, resources=Resources(device="cpu"), time_limits_min=limits, grace_s=1)
    job = ArrayTask(store=store, grid="tiny", units=[unit], launch=launch, time_limit_min=TIME_LIMIT_MIN)
    monkeypatch.setattr(task, "_STARTED", time.monotonic() - 60 * minutes)
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
    said = "no progress within the time limit of 60 min; raise cluster.train.time_min"
    assert messages == ([("timeout", said)] if is_in_vain else [])


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
