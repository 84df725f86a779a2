"""The real pool of processes, and what survives when any of them is killed at any moment."""

import contextlib
import functools
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pytest

from configs.entry import run_command
from jobs.files.store import Store
from pipeline.launch import launch
from pipeline.state.activity import read_activity
from tests.grids import finished_files, grid_records, tiny
from tests.sessions import PATIENCE_S, await_empty, started

_Found = TypeVar("_Found")
SLOW_ENOUGH = ["train.epochs=3", "cluster=local"]


def _launched(results: Path, *more: str) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    return started(["pipeline.launch", *tiny(results, *SLOW_ENOUGH, *more)])


def _await(condition: Callable[[], _Found | None], process: subprocess.Popen[str]) -> _Found:
    """What a condition finds at last."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return found


def _worker_pid(results: Path, stage: str) -> int | None:
    """The process of a unit of that stage which has begun and not ended, as its log says."""
    for log in sorted((Store(results).grid_dir("tiny") / "logs" / stage).rglob("*.log")):
        text = log.read_text()
        begun = re.findall(r"begin .* process (\d+)\)", text)
        if begun and len(re.findall(r"INFO end|failed ", text)) < len(begun):
            return int(begun[-1])
    return None


def _finish(results: Path, expected: pa.Table) -> None:
    """Launch again: the grid becomes complete, with the records of an undisturbed run."""
    before = finished_files(results)
    assert run_command("launch", launch, tiny(results, *SLOW_ENOUGH)) == 0  # its fork server serves all these tests
    assert before.items() <= finished_files(results).items()
    assert grid_records(results).equals(expected)
    assert list(results.rglob("*.partial.parquet")) == []
    assert list(results.rglob("state")) == []


def test_the_pool_gives_the_records_of_the_plain_loop(
    tmp_path: Path, undisturbed_records: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("launch", launch, tiny(tmp_path, "cluster=local", "cluster.num_shards=2")) == 0
    assert "next: python -m analysis.envelope grid=tiny" in capsys.readouterr().out
    assert grid_records(tmp_path).equals(undisturbed_records)
    log = next((Store(tmp_path).grid_dir("tiny") / "logs" / "train").glob("*.log")).read_text()
    assert "epoch 2: loss" in log
    assert not Store(tmp_path).activity_path("tiny").exists()


MORE_OFTEN = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize("seed", [0, MORE_OFTEN(1), MORE_OFTEN(2)])
def test_kill_9_of_the_launcher_anywhere(tmp_path: Path, undisturbed_records: pa.Table, seed: int) -> None:
    """Status shows it as running, and no worker outlives it."""
    choose = random.Random(seed)
    with _launched(tmp_path) as process:
        _await(lambda: _worker_pid(tmp_path, "train"), process)
        _await(lambda: read_activity(Store(tmp_path), "tiny").running, process)
        time.sleep(choose.uniform(0, 2.5))  # from the first epoch to the last shard
        process.kill()
        process.wait()
        await_empty(process.pid)
    assert not read_activity(Store(tmp_path), "tiny").running
    _finish(tmp_path, undisturbed_records)


def test_kill_9_of_a_worker_costs_its_own_unit_only(tmp_path: Path) -> None:
    """One that trains, and one that certifies another model."""
    with _launched(tmp_path, "train.epochs=12", "certify.n=8000") as process:
        for stage in ("train", "certify"):
            os.kill(_await(functools.partial(_worker_pid, tmp_path, stage), process), signal.SIGKILL)
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "2 units failed; finished work is kept. Launch again" in errors
    assert "the process was killed (SIGKILL): out of memory, or killed by hand" in errors
    store = Store(tmp_path)
    assert len(list(store.root.glob("runs/*/checkpoint.pt"))) == 2
    assert len(list(store.root.glob("runs/*/certify/*/??????-*.parquet"))) == 5


@pytest.mark.parametrize("seed", [MORE_OFTEN(3), MORE_OFTEN(4)])
def test_kill_9_of_workers_again_and_again(tmp_path: Path, undisturbed_records: pa.Table, seed: int) -> None:
    choose = random.Random(seed)
    for stage in ("train", "certify"):
        with _launched(tmp_path) as process:
            with contextlib.suppress(AssertionError):  # the launch may be through before we find a victim
                _await(functools.partial(_worker_pid, tmp_path, stage), process)
                time.sleep(choose.uniform(0, 0.2))
                pid = _worker_pid(tmp_path, stage)
                if pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            process.communicate(timeout=PATIENCE_S)
    _finish(tmp_path, undisturbed_records)


def test_ctrl_c_ends_the_workers_and_says_how_to_resume(tmp_path: Path, undisturbed_records: pa.Table) -> None:
    with _launched(tmp_path) as process:
        _await(lambda: _worker_pid(tmp_path, "train"), process)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130
        assert errors.endswith("interrupted; run the same command again to resume\n")
        await_empty(process.pid)
    _finish(tmp_path, undisturbed_records)
