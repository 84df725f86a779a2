"""A small grid on the test cluster, and what a test does to it."""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from configs.composition import compose_config
from jobs.files.failures import Failure
from jobs.files.manifest import read_manifest
from jobs.files.store import Store
from jobs.specs.runs import Manifest
from pipeline.state.queue import QueuedTask, read_queue
from pipeline.state.survey import UnitState
from pipeline.status import Status, look
from tests.grids import finished_files, grid_records

HERE = Path(__file__).parent
CLUSTER = HERE / "cluster"
PATIENCE_S = 300.0
"""A wait is given up when neither queue nor files have changed for this long, however busy the machine is."""
_LOOK_EVERY_S = 2.0

GRID = [
    "grid=digits",
    "grid.name=faults",
    "grid.blocks=[{method: gaussian, sigma: [0.25, 0.5]}]",
    "train.epochs=12",
    "certify.n=1000",
    "certify.indices.stop=8",
    "cluster.num_shards=2",
    "cluster.save_every_s=0.01",
]
SLURM = [
    "cluster=slurm",
    "cluster.poll_s=0.3",
    *(f"cluster.{stage}.{option}" for stage in ("train", "certify") for option in ("cpus=1", "mem_gb=2.5")),
    "cluster.aggregate.mem_gb=2.5",
    "cluster.units_per_job=2",  # importing torch is what takes longest
]

HALF = ("runs/*s0.25*", "runs/*s0.50*/certify", "grids/*/records.parquet")
"""Which finished results are redone: all of one model, the certification of the other."""
LITTLE = HALF[1:]
"""The certification of one model only: where a fault has nothing to do with training, which takes longest."""


def compose(results: Path, *more: str) -> dict[str, Any]:
    """The configuration of the grid."""
    return compose_config("launch", [*GRID, f"results={results}", *more])


@dataclass
class Site:
    """A results folder, launches into it, and what the cluster makes of them."""

    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def store(self) -> Store:
        return Store(self.results)

    @property
    def manifest(self) -> Manifest:
        return read_manifest(self.store.manifest_path("faults"))

    def order_faults(self, **faults: str) -> None:
        """What units whose name matches do when they begin next; see faults/sitecustomize.py."""
        (self.folder / "faults.json").write_text(json.dumps(faults))
        for marker in self.folder.glob("faults.json.*"):
            marker.unlink()

    def command(self, *more: str) -> list[str]:
        faults = self.folder / "faults.json"
        if not faults.exists():
            self.order_faults()
        exports = f"export FAULTS={shlex.quote(str(faults))} PYTHONPATH={shlex.quote(str(HERE / 'faults'))}"
        return [
            sys.executable,
            "-m",
            "pipeline.launch",
            *GRID,
            *SLURM,
            f"results={self.results}",
            f"cluster.setup=['{exports}']",
            *more,
        ]

    def launch(self, *more: str, expect: int = 0, **environment: str) -> str:
        """Launch, and what it printed."""
        process = self.start(self.command(*more), **environment)
        text = "".join(self.end(process))
        assert process.returncode == expect, text + self.logs()
        return text

    def finish(self, *more: str) -> str:
        """Launch until the end."""
        return self.launch("wait=true", *more)

    def status_command(self, *more: str) -> list[str]:
        return [sys.executable, "-m", "pipeline.status", "grid=faults", f"results={self.results}", *more]

    def status(self, *more: str) -> str:
        process = self.start(self.status_command(*more))
        output, errors = self.end(process)
        assert (process.returncode, errors) == (0, "")
        return output

    def look(self) -> Status:
        return look(self.manifest, self.store)

    def states(self) -> dict[str, str]:
        """The state of every unit by name."""
        return {item.unit.name: item.state for item in self.look().units}

    def failures(self) -> dict[str, Failure]:
        """The failure of every unit that status calls failed, by stage and sigma (or shard)."""
        return {item.unit.name: item.failure for item in self.look().units if item.failure}

    def unit(self, pattern: str) -> UnitState:
        """The one unit whose name matches."""
        (found,) = [item for item in self.look().units if re.search(pattern, item.unit.name)]
        return found

    def queue(self) -> list[QueuedTask]:
        return read_queue()

    def log_of(self, pattern: str) -> str:
        """The logs of units, by a pattern of their paths."""
        return "\n".join(path.read_text() for path in sorted(self.results.glob(f"grids/faults/logs/{pattern}")))

    def logs(self) -> str:
        """All logs, for the message of a failed assertion."""
        paths = sorted(self.results.rglob("*.log")) + sorted(self.results.rglob("*_log.out"))
        return "\n".join(f"--- {path}\n{path.read_text(errors='replace')[-3000:]}" for path in paths)

    def await_(self, condition: Callable[[], object], what: str) -> None:
        """Wait until a condition holds, as long as queue or files change."""
        seen, changed = "", time.monotonic()
        looked = changed - _LOOK_EVERY_S
        while not condition():
            if time.monotonic() - looked >= _LOOK_EVERY_S:
                now, looked = self._visible(), time.monotonic()
                if now != seen:
                    seen, changed = now, looked
                assert looked - changed < PATIENCE_S, f"{what} did not come\n{self.logs()}"
            time.sleep(0.2)

    def _visible(self) -> str:
        """Queue and files: what changes while there is any progress."""
        command = ["squeue", "--noheader", "--array", "--format=%i %T %N %r"]
        queue = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)
        find = ["find", str(self.folder), "-printf", "%p %T@ %s\\n"]
        files = subprocess.run(find, capture_output=True, text=True, check=False)  # some vanish meanwhile
        return queue.stdout + files.stdout

    def start(self, command: Sequence[str], **environment: str) -> subprocess.Popen[str]:
        """Start a command, to be waited for by ``end``."""
        variables = {**os.environ, **environment}
        return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def end(self, process: subprocess.Popen[str]) -> tuple[str, str]:
        """What a command printed, on standard output and standard error, once it has ended."""
        printed: list[tuple[str, str]] = []

        def has_ended() -> bool:
            with contextlib.suppress(subprocess.TimeoutExpired):
                printed.append(process.communicate(timeout=0.1))
            return bool(printed)

        try:
            self.await_(has_ended, "the end of a command")
        finally:
            process.kill()
        return printed[0]

    def await_idle(self) -> None:
        """Wait until the queue is empty."""
        self.await_(lambda: not self.queue(), "the end of all jobs")

    def copy_from(self, results: Path, *without: str) -> dict[str, tuple[int, int]]:
        """Begin with finished results, without the files of some patterns; what is finished."""
        shutil.copytree(results, self.results)
        for pattern in without:
            for path in sorted(self.results.glob(pattern), reverse=True):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return finished_files(self.results)

    def assert_complete(self, undisturbed: pa.Table, before: dict[str, tuple[int, int]]) -> None:
        """The records are those of a launch that nothing befell, and what was finished was not touched."""
        assert before.items() <= finished_files(self.results).items()
        assert grid_records(self.results, "faults").equals(undisturbed)
        assert set(self.states().values()) == {"done"}


def slurm(*command: str) -> str:
    """The output of one of SLURM's own commands."""
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@contextlib.contextmanager
def preempted() -> Iterator[None]:
    """A job of the higher partition has everything, meanwhile."""
    job = slurm(
        "sbatch", "--parsable", "--partition=high", "--nodes=4", "--exclusive", "--output=/dev/null", "--wrap=sleep 999"
    )
    try:
        yield
    finally:
        slurm("scancel", job.strip())


def release() -> None:
    """Let all held jobs go."""
    slurm("scontrol", "release", ",".join(sorted({task.array_id for task in read_queue()})))


def kill_daemon(name: str) -> None:
    """SIGKILL to a daemon of the cluster."""
    subprocess.run([CLUSTER, "kill", name], check=True, capture_output=True)


def start_cluster() -> None:
    """Bring back whatever daemon is dead."""
    subprocess.run([CLUSTER, "up"], check=True, capture_output=True)
