"""The shell lines of a batch script, run by bash, and what is read from the log that they write."""

import os
import subprocess
from pathlib import Path

import pytest

from pipeline.slurm.sbatch import guarded
from pipeline.state.joblog import job_begins_line, read_job_log

ARRAY = "grid.x.train-0"


def _run(folder: Path, *setup: str, start: int = 0) -> int:
    """Append what a batch script with a setup writes to the log; its exit code."""
    lines = [job_begins_line(ARRAY), *guarded([*setup]), "echo the command runs"]
    job = {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "1", "SLURM_RESTART_COUNT": str(start)}
    with (folder / "log").open("ab") as log:
        command = ["bash", "-c", "\n".join(lines)]
        done = subprocess.run(
            command, env={**os.environ, **job, "SLURMD_NODENAME": "n7"}, stdout=log, stderr=log, check=False
        )
    return done.returncode


@pytest.mark.parametrize(
    ("setup", "code", "said"),
    [
        (["module load cuda/99"], 127, "the setup ended with exit code 127"),
        (["false", "true"], 1, "the setup ended with exit code 1"),
        (["exit 3"], 3, "the setup ended with exit code 3"),
        (["exit 0"], 0, "the setup ended with exit code 0"),
        (["export X=1", "cd /"], 0, "the command runs"),
        (["set +e", "false"], 0, "the command runs"),
        ([], 0, "the command runs"),
    ],
)
def test_setup_stops_at_the_first_line_that_fails(tmp_path: Path, setup: list[str], code: int, said: str) -> None:
    assert _run(tmp_path, *setup) == code
    log = read_job_log(tmp_path / "log", "5_1")
    assert (log.host, log.num_units, log.lost) == ("n7", 0, ())
    assert log.last_lines.splitlines()[-1].endswith(said)


def test_the_last_start_counts(tmp_path: Path) -> None:
    _run(tmp_path, "true")
    with (tmp_path / "log").open("a") as log:
        log.write("x INFO begin train/a on n7 gpus [0]\n")
    (lost,) = read_job_log(tmp_path / "log", "5_1").lost
    assert (lost.unit, lost.where.host, lost.where.job) == ("train/a", "n7", "5_1")
    _run(tmp_path, "exit 1", start=1)
    assert read_job_log(tmp_path / "log", "5_1").lost == ()
