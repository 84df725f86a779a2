"""python -m benchmarks.launch: cost of a second launch and of a status, for grids in which nothing is to do.

Makes the files of grids of 640 models x 20 shards and 6,400 models x 20 shards (without real contents, since both
commands read only the end of a shard), then runs each command in a separate process. The grid is complete; or every
shard has failed twice, or 20 times, and is not retried; or 5,000 shards are in SLURM's queue and the rest is done.
Prints wall seconds, CPU seconds, their ratio to those of the complete grid, and peak memory. Exit code 1 above the
limits. With --shards 128000 and 20 failures per shard, it makes 2.6 million files.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from tabulate import tabulate

from benchmarks.machine import machine
from configs.composition import compose_config
from jobs.aggregate import FINGERPRINT_KEY
from jobs.files import records
from jobs.files.failures import following, record_death
from jobs.files.layouts import CERTIFICATION
from jobs.files.manifest import write_manifest
from jobs.files.store import Store
from jobs.specs.indices import partition
from jobs.specs.runs import Manifest
from jobs.specs.units import ShardUnit
from pipeline.request.config import parse_launch
from pipeline.state import ledger
from pipeline.state.ledger import ArrayName

NUM_SHARDS = 20
LIMITS_S = {12_800: 3.0, 128_000: 30.0}
LIMIT_MB = 1000
LIMIT_RATIO = 2.0
"""CPU seconds with failures or a queue, to those of a complete grid."""
STATES = ("complete", "failed twice", "failed 20 times", "5,000 queued")
_NUM_QUEUED = 5000
_WHOLE = {".pt": b"PK\5\6" + bytes(18), ".parquet": b"PAR1" + bytes(4) + b"PAR1"}
"""The ends that a whole zip file and a whole Parquet file have."""
_SEEDS = {12_800: 1, 128_000: 10}


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.launch", description=__doc__)
    parser.add_argument("--shards", type=int, nargs="+", default=sorted(LIMITS_S), choices=sorted(LIMITS_S))
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"], help="seconds that the limits apply to")
    parser.add_argument("--states", nargs="+", default=list(STATES), choices=STATES)
    options = parser.parse_args(arguments)
    print(machine(), flush=True)
    rows, is_slow = [], False
    for num_shards in options.shards:
        undisturbed_s: dict[str, float] = {}
        for state in sorted({"complete", *options.states}, key=STATES.index):
            with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
                command = _overrides(num_shards, Path(folder))
                environment = _make(state, parse_launch(compose_config("launch", command)).manifest, Path(folder))
                cluster = "slurm" if "queued" in state else "local"
                for name, arguments_ in (
                    ("pipeline.launch", [*command, f"cluster={cluster}"]),
                    ("pipeline.status", ["grid=made_up", f"results={folder}"]),
                ):
                    wall_s, cpu_s, peak_mb, said = _measured([name, *arguments_], environment)
                    assert EXPECTED[state] in said or "images certified" in said, said
                    ratio = cpu_s / undisturbed_s.setdefault(name, cpu_s)
                    rows.append((f"{num_shards:,}", state, name, wall_s, cpu_s, ratio, peak_mb))
                    spent_s = wall_s if options.clock == "wall" else cpu_s
                    is_slow |= state == "complete" and spent_s > LIMITS_S[num_shards]
                    is_slow |= ratio > LIMIT_RATIO or peak_mb > LIMIT_MB
    headers = ["shards", "state", "command", "wall s", "CPU s", "ratio", "peak MB"]
    print(tabulate(rows, headers=headers, floatfmt=".1f"))
    return int(is_slow)


def _overrides(num_shards: int, folder: Path) -> list[str]:
    """The paper's 640 models, once for each seed, on 500 images in 20 shards."""
    seeds = list(range(_SEEDS[num_shards]))
    block = (
        "{method: smoothadv, attack: [pgd, ddn], sigma: [0.12, 0.25, 0.5, 1.0], epsilon: [0.25, 0.5, 1.0, 2.0], "
        f"m_train: [1, 2, 4, 8], num_steps: [2, 4, 6, 8, 10], seed: {seeds}, warmup_epochs: 6}}"
    )
    return [
        "grid=digits",
        "grid.name=made_up",
        f"grid.blocks=[{block}]",
        f"cluster.num_shards={NUM_SHARDS}",
        f"results={folder}",
    ]


EXPECTED = {
    "complete": "nothing to do",
    "failed twice": "units to run",
    "failed 20 times": "units to run",
    "5,000 queued": "nothing to submit",
}


def _make(state: str, manifest: Manifest, folder: Path) -> dict[str, str]:
    """The files of a grid in some state, all models trained; the environment of the commands."""
    store = Store(folder)
    write_manifest(store.manifest_path(manifest.grid), manifest)
    units = []
    for run in manifest.runs:
        store.shards_dir(run.place).mkdir(parents=True)
        store.checkpoint_path(run.train.key).write_bytes(_WHOLE[".pt"])
        shards = partition(run.indices, -(-len(run.indices) // NUM_SHARDS))
        units += [ShardUnit(run=run, indices=shard) for shard in shards]
    is_queued = "queued" in state
    if state == "complete" or is_queued:
        for unit in units[_NUM_QUEUED:] if is_queued else units:
            store.shard_path(unit.run.place, unit.indices).write_bytes(_WHOLE[".parquet"])
    if is_queued:
        return _queue(units[:_NUM_QUEUED], store, manifest.grid, folder)
    if state == "complete":
        provenance = {run.keys: {"device": "cpu"} for run in manifest.runs}
        metadata = {FINGERPRINT_KEY: manifest.fingerprint, "runs": json.dumps(provenance)}
        records.write_records(store.records_path(manifest.grid), CERTIFICATION.schema.empty_table(), metadata)
    else:
        _fail(units, store, 20 if "20" in state else 2)
    return {**os.environ}


def _fail(units: Sequence[ShardUnit], store: Store, num_attempts: int) -> None:
    """Failure records, as the first unit's would be."""
    first = record_death(store, units[0], "bug", "RuntimeError: it failed", store.log_path("made_up", units[0].name))
    attempts = [*itertools.accumulate(range(1, num_attempts), lambda last, _: following(last, last), initial=first)]
    texts = {failure.attempt: json.dumps(asdict(failure)) for failure in attempts}
    for unit in units:
        folder, stem = store.failures_dir(unit.train.key), "-".join([unit.stage, *unit.name.split("/")[2:]])
        folder.mkdir(exist_ok=True)
        for attempt, text in texts.items():
            path = folder / f"{stem}-attempt-{attempt:04d}.json"
            path.write_text(text.replace(units[0].name, unit.name))


def _queue(units: Sequence[ShardUnit], store: Store, grid: str, folder: Path) -> dict[str, str]:
    """All units in arrays of 1,000 that wait, as commands of SLURM on PATH say."""
    lines = []
    for number, first in enumerate(range(0, len(units), 1000)):
        name = ArrayName(grid=grid, launch="000001-abcdef", array=f"certify-{number}")
        tasks = [[unit.name] for unit in units[first : first + 1000]]
        ledger.write_tasks(store, name, tasks, limit_min=60)
        lines += [f"{number + 1}|{index}|PD|{name}||{os.getuid()}||N/A|Priority\n" for index in range(len(tasks))]
    lines.append(f"999|0|PD|aggregate-0.{grid}.000001-abcdef||{os.getuid()}||N/A|Dependency\n")
    ledger.write_tasks(store, ArrayName(grid=grid, launch="000001-abcdef", array="aggregate-0"), [["aggregate"]], 60)
    (folder / "queue").write_text("".join(lines))
    (folder / "bin").mkdir()
    for command in ("squeue", "sbatch", "scontrol"):
        (folder / "bin" / command).write_text(f"#!/bin/sh\n[ {command} != squeue ] || cat {folder}/queue\n")
        (folder / "bin" / command).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}/bin:{os.environ['PATH']}"}


def _measured(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[float, float, float, str]:
    """Wall seconds, CPU seconds, peak memory in MB and output of a command."""
    began = time.perf_counter()
    command = [sys.executable, "-c", _MEASURING, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: units wait for a person
    wall_s = time.perf_counter() - began
    said, _, measured = done.stdout.rstrip().rpartition("\n")
    cpu_s, peak_mb = map(float, measured.split())
    return wall_s, cpu_s, peak_mb, said


# The kernel's ru_maxrss would count what the process was before it became Python: us.
_MEASURING = """
import atexit, re, runpy, sys, time
def say():
    peak_kb = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
    print(time.process_time(), int(peak_kb) / 1024)
atexit.register(say)
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
