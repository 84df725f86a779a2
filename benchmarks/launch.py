"""python -m benchmarks.launch: a second launch and a status of a complete grid, as users run them.

Makes the files of complete grids of 640 models x 20 shards and 6,400 models x 20 shards (what a shard
holds does not matter here: neither command opens one), then runs both commands in processes of
their own. Prints wall seconds, CPU seconds and peak memory; ends with exit code 1 above the limits.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from benchmarks.machine import machine
from configs.composition import compose_config
from jobs.aggregate import FINGERPRINT_KEY
from jobs.files import records
from jobs.files.manifest import write_manifest
from jobs.files.store import Store
from jobs.specs.indices import partition
from jobs.specs.runs import Manifest
from pipeline.request.config import parse_launch

NUM_SHARDS = 20
LIMITS_S = {12_800: 3.0, 128_000: 30.0}
LIMIT_MB = 1000
_SEEDS = {12_800: 1, 128_000: 10}


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.launch", description=__doc__)
    parser.add_argument("--shards", type=int, nargs="+", default=sorted(LIMITS_S), choices=sorted(LIMITS_S))
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"], help="what the limits are for")
    options = parser.parse_args(arguments)
    print(machine(), flush=True)
    rows, is_slow = [], False
    for num_shards in options.shards:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            command = _overrides(num_shards, Path(folder))
            _complete(parse_launch(compose_config("launch", command)).manifest, Store(Path(folder)))
            for name, arguments_ in (
                ("pipeline.launch", command),
                ("pipeline.status", ["grid=made_up", f"results={folder}"]),
            ):
                wall_s, cpu_s, peak_mb, said = _measured([name, *arguments_])
                assert "nothing to do" in said or "images certified" in said, said
                rows.append((f"{num_shards:,}", name, wall_s, cpu_s, peak_mb))
                spent_s = wall_s if options.clock == "wall" else cpu_s
                is_slow |= spent_s > LIMITS_S[num_shards] or peak_mb > LIMIT_MB
    print(tabulate(rows, headers=["shards", "command", "wall s", "CPU s", "peak MB"], floatfmt=".1f"))
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


def _complete(manifest: Manifest, store: Store) -> None:
    """Every file that says that the grid is done."""
    write_manifest(store.manifest_path(manifest.grid), manifest)
    for run in manifest.runs:
        store.shards_dir(run.place).mkdir(parents=True)
        store.checkpoint_path(run.train.key).write_bytes(b"x")
        for shard in partition(run.indices, -(-len(run.indices) // NUM_SHARDS)):
            store.shard_path(run.place, shard).write_bytes(b"x")
    provenance = {f"{run.train.key}/{run.key}": {"device": "cpu"} for run in manifest.runs}
    metadata = {FINGERPRINT_KEY: manifest.fingerprint, "runs": json.dumps(provenance)}
    records.write_records(store.records_path(manifest.grid), records.SCHEMA.empty_table(), metadata)


def _measured(arguments: Sequence[str]) -> tuple[float, float, float, str]:
    """Wall seconds, CPU seconds, peak memory in MB and output of a command."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", _MEASURING, *arguments], stdout=subprocess.PIPE, text=True, check=True)
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
