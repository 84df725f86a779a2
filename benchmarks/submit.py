"""python -m benchmarks.submit: cost of submitting 1,000 models x 4 shards to SLURM, compared with one job per unit.

Needs a SLURM cluster on which jobs may be held, such as that of tests/slurm (make slurm-up, then source its env).
No job runs: all are submitted held, and cancelled at the end. Measures the commands as a user runs them:

- the launch, a second launch that finds everything queued, the status, and the cancellation: wall time
  and the number of calls of each of SLURM's commands, and
- a naive submission of a subset: one sbatch for each unit, one squeue for each job, scaled to all units.

    python -m benchmarks.submit                          the real size; under a minute
    python -m benchmarks.submit --models 100 --naive 10
"""

import argparse
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tabulate import tabulate

from jobs.specs.units import STAGES

_COMMANDS = ("sbatch", "squeue", "scontrol", "scancel", "sacct")


def main() -> None:
    """Submit, ask, cancel, print."""
    parser = argparse.ArgumentParser(prog="benchmarks.submit", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--naive", type=int, default=100, help="units to submit with one sbatch each")
    options = parser.parse_args()
    if shutil.which("sbatch") is None:
        sys.exit("there is no sbatch here; make slurm-up, then source the env file that it names")
    num_units = options.models * (1 + options.shards)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        calls = CountedCalls(Path(folder))
        rows = measure_pipeline(Path(folder) / "results", options.models, options.shards, calls)
        rows += measure_naive(num_units, options.naive, calls)
    print(f"{options.models:,} models x {options.shards} shards: {num_units:,} units and an aggregation")
    print(tabulate(rows, headers=["what", "seconds", *_COMMANDS], floatfmt=".2f"))


class CountedCalls:
    """SLURM's commands, counted by wrappers that come first on PATH."""

    def __init__(self, folder: Path) -> None:
        self._log, self._bin = folder / "calls", folder / "bin"
        self._bin.mkdir()
        for command in _COMMANDS:
            path = self._bin / command
            path.write_text(f'#!/bin/sh\necho {command} >> {self._log}\nexec {shutil.which(command)} "$@"\n')
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def run(self, *command: str) -> tuple[str, float, Counter[str]]:
        """Output, wall seconds, and calls of SLURM's commands, of a command that must succeed."""
        self._log.write_text("")
        environment = {**os.environ, "PATH": f"{self._bin}:{os.environ['PATH']}"}
        began = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        elapsed_s = time.perf_counter() - began
        if done.returncode:
            sys.exit(f"{' '.join(command)[:200]}\n{done.stdout}{done.stderr}")
        return done.stdout, elapsed_s, Counter(self._log.read_text().split())


def measure_pipeline(results: Path, num_models: int, num_shards: int, calls: CountedCalls) -> list[list[object]]:
    """Rows of the table for what the pipeline's own commands take."""
    sigmas = ",".join(f"{1 + number / 100_000:.5f}" for number in range(num_models))
    arguments = [f"results={results}", "grid.name=benchmark"]
    launch = [
        *("pipeline.launch", "grid=digits", *arguments, "cluster=slurm", "+cluster.extra.hold=true"),
        *(f"cluster.num_shards={num_shards}", f"grid.blocks=[{{method: gaussian, sigma: [{sigmas}]}}]"),
        *(f"cluster.{stage}.gpus=0" for stage in STAGES),
    ]
    look = ["pipeline.status", "grid=benchmark", f"results={results}"]
    rows: list[list[object]] = []
    for what, command in (
        ("launch", launch),
        ("second launch: nothing to submit", launch),
        ("status", look),
        ("cancel", ["pipeline.cancel", *look[1:]]),
    ):
        _, elapsed_s, counts = calls.run(sys.executable, "-m", *command)
        rows.append([what, elapsed_s, *(counts[name] for name in _COMMANDS)])
    return rows


def measure_naive(num_units: int, num_sampled: int, calls: CountedCalls) -> list[list[object]]:
    """Rows for one sbatch a unit and one squeue a job: as sampled, and scaled to all units."""
    jobs, submit_s, ask_s = [], 0.0, 0.0
    for _ in range(num_sampled):
        answer, elapsed_s, _ = calls.run("sbatch", "--hold", "--output=/dev/null", "--wrap=true")
        jobs.append(re.findall(r"\d+", answer)[0])
        submit_s += elapsed_s
    for job in jobs:
        ask_s += calls.run("squeue", "--noheader", f"--jobs={job}", "--format=%T")[1]
    calls.run("scancel", *jobs)
    scale = num_units / num_sampled
    return [
        [f"naive: sbatch of {num_sampled} units", submit_s, num_sampled, 0, 0, 0, 0],
        [f"naive: squeue of {num_sampled} jobs", ask_s, 0, num_sampled, 0, 0, 0],
        ["naive: sbatch of all units (scaled)", submit_s * scale, num_units, 0, 0, 0, 0],
        ["naive: squeue of all jobs (scaled)", ask_s * scale, 0, num_units, 0, 0, 0],
    ]


if __name__ == "__main__":
    main()
