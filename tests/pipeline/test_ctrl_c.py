"""Ctrl-C at any moment of any command: one line, exit code 130, no process left running, sound results."""

import contextlib
import functools
import os
import random
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from configs.entry import run_command
from pipeline.launch import launch
from pipeline.state.queue import read_queue
from tests.grids import grid_records, tiny
from tests.pipeline.fake_slurm import FakeSlurm
from tests.sessions import PATIENCE_S, await_empty, cpu_seconds, started

MORE_OFTEN = functools.partial(pytest.param, marks=pytest.mark.slow)
SEEDS = [0, *map(MORE_OFTEN, range(1, 5))]
WHILE_PYTHON_IMPORTS_S, TO_THE_END_S = 0.8, 3.0


def _interrupt(command: Sequence[str], cpu_s: float) -> None:
    """Press Ctrl-C when a command has used that much CPU time, or has become idle, so that the load does not matter."""
    with started(command, hold_back_ctrl_c=True) as process:
        used_s, since = 0.0, time.monotonic()
        while process.poll() is None and used_s < cpu_s and time.monotonic() - since < 2:
            if used_s != (used_s := cpu_seconds(process)):
                since = time.monotonic()
            time.sleep(0.002)
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=PATIENCE_S)
        await_empty(process.pid)
    assert process.returncode in (0, 130), errors
    if process.returncode:
        assert errors.endswith("interrupted; run the same command again to resume\n")
        assert errors.count("interrupted") == 1
    else:  # it was complete
        assert "complete" in output or "wrote" in output
    assert "Traceback" not in errors
    assert "Error" not in errors


@pytest.mark.parametrize("seed", SEEDS)
def test_a_launch_on_this_machine_resumes(tmp_path: Path, undisturbed_records: pa.Table, seed: int) -> None:
    choose = random.Random(seed)
    for cluster, until in (("local", WHILE_PYTHON_IMPORTS_S), ("local", TO_THE_END_S), ("debug", TO_THE_END_S)):
        _interrupt(["pipeline.launch", *tiny(tmp_path, f"cluster={cluster}")], choose.uniform(0, until))
    assert run_command("launch", launch, tiny(tmp_path, "cluster=debug")) == 0
    assert grid_records(tmp_path).equals(undisturbed_records)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_submitted_is_submitted_once(fake: FakeSlurm, results: Path, seed: int) -> None:
    choose = random.Random(seed)
    slurm = tiny(results, "cluster=slurm")
    for _ in range(2):
        _interrupt(["pipeline.launch", *slurm, "wait=true", "cluster.poll_s=0.1"], choose.uniform(0, TO_THE_END_S))
    assert run_command("launch", launch, slurm) == 0
    assert len(read_queue()) == 13
    watch = ["pipeline.status", "grid=tiny", f"results={results}", "watch=true", "interval_s=0.1"]
    _interrupt(watch, choose.uniform(0, TO_THE_END_S))


@pytest.mark.parametrize("seed", SEEDS)
def test_an_analysis_is_done_again(tmp_path: Path, undisturbed_results: Path, seed: int) -> None:
    results = Path(shutil.copytree(undisturbed_results, tmp_path / "results"))
    _interrupt(["analysis.envelope", "grid=tiny", f"results={results}"], random.Random(seed).uniform(0, 2))
