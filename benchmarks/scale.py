"""python -m benchmarks.scale: cost of aggregation, tables and imports at 644 models x 10,000 images.

Makes a grid of the paper's size with synthetic votes in a temporary folder, with the project's own writers. Then it
measures the following, several times and in separate processes. It prints the median of CPU seconds, so that other
work on the machine matters less, and the largest memory.

- aggregation, the envelope (also with ``alpha=``, and of 4 models only), and the report;
- with ``--logs DIR``, the import of a folder of published logs;
- DuckDB, if it is installed, computing the same cells from the same file;
- a plain loop for the same cells, on a few of the models and scaled to all: it scans a model's log for each radius,
  once rereading the log for each radius and once, like the published script, reading it once per model.

    python -m benchmarks.scale                         the real size; some minutes, 2 GB of disk
    python -m benchmarks.scale --models 27 --images 5000 --classes 1000
    python -m benchmarks.scale --models 64 --images 1000 --rounds 1
"""

import argparse
import importlib.util
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from tabulate import tabulate

from analysis.export_tsv import log_lines
from analysis.load import load_grid
from analysis.runs import Reading
from benchmarks.machine import machine
from jobs.files import records
from jobs.files.layouts import layout_of
from jobs.files.manifest import write_manifest
from jobs.files.store import Store
from jobs.specs.certify import CertifySpec
from jobs.specs.indices import IndexRange
from jobs.specs.runs import Manifest, Run
from jobs.specs.train import TrainSpec
from smoothing.bounds import clopper_pearson_lower
from smoothing.radius import ABSTAIN, certified_radius

GRID = "made_up"
STEP, LAST_RADIUS = 0.01, 4.0
N, ALPHA = 100_000, 0.001
_SHARD = 10_000  # images of a shard
_SAMPLED = 3  # models that the plain loop is timed on
_SAMPLED_RADII = 20  # radii for which it rereads the log


def main() -> None:
    """Prepare, measure, print."""
    parser = argparse.ArgumentParser(prog="benchmarks.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=644)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--logs", help="folder of published logs to import too")
    parser.add_argument("--folder", help="working folder, which is kept: empty, or from an earlier run")
    options = parser.parse_args()
    print(machine(), vars(options), sep="\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        store = Store(Path(options.folder or folder))
        began = time.perf_counter()
        if not store.manifest_path(GRID).exists():
            prepare(store, options.models, options.images, options.classes)
            print(f"made {options.models} models x {options.images} images in {time.perf_counter() - began:.0f} s")
        rows = []
        for name, command in commands(store, options.logs).items():
            measured = [measure(command) for _ in range(options.rounds)]
            cpu_s, peaks = [one[0] for one in measured], [one[1] for one in measured]
            spread = f"{min(cpu_s):.2f} to {max(cpu_s):.2f}"
            rows.append([name, f"{statistics.median(cpu_s):.2f}", spread, f"{max(peaks):.0f}"])
            print(*rows[-1], sep=" | ", flush=True)
        print(tabulate(rows, ["what", "CPU s", "range", "peak MB"], tablefmt="pipe", disable_numparse=True))
        print(f"{store.records_path(GRID).stat().st_size / 1e6:.0f} MB of records, {_num_inodes(store)} inodes")
        num_radii = round(LAST_RADIUS / STEP) + 1
        anew_s, once_s = measure_plain_loop(store, options.models, num_radii)
        print(f"plain loop, {num_radii} radii, log read for each model and radius: {anew_s:.0f} s of CPU (scaled)")
        print(f"plain loop, log read once for each model: {once_s:.0f} s of CPU (scaled)")


def prepare(store: Store, num_models: int, num_images: int, num_classes: int = 10) -> None:
    """Write a grid as its jobs would: manifest, and the shards of each run."""
    rng = np.random.default_rng(0)
    manifest = Manifest(
        grid=GRID,
        runs=tuple(_run(model_nr, IndexRange(start=0, stop=num_images)) for model_nr in range(num_models)),
    )
    write_manifest(store.manifest_path(GRID), manifest)
    others = rng.dirichlet(np.full(num_classes - 1, 0.2), num_images)  # where the votes go that the top class loses
    for run in manifest.runs:
        rows = made_up_rows(run, rng, others)
        for start in range(0, num_images, _SHARD):
            part = IndexRange(start=start, stop=min(start + _SHARD, num_images))
            metadata = {**layout_of(run).specs, "source": "benchmark", "images": "made up"}
            table = rows.slice(part.start, len(part))
            records.write_records(store.shard_path(run.place, part), table, metadata)


def made_up_rows(run: Run, rng: np.random.Generator, others: npt.NDArray[np.float64]) -> pa.Table:
    """Records of a model whose images' true probabilities are spread as in the published logs.

    Args:
        run: The run.
        rng: Source of chance.
        others: How an image's votes for other classes than the top one are spread over them, shape (N, K - 1).
    """
    num_images, num_classes = len(run.indices), others.shape[1] + 1
    margin = rng.normal(loc=1.0 - run.train.sigma, scale=1.2, size=num_images)
    probability = 1.0 / (1.0 + np.exp(-2.0 * margin))
    votes = rng.binomial(N, probability)
    p_lower = clopper_pearson_lower(votes, N, ALPHA)
    certifies = p_lower >= 0.5
    label = rng.integers(0, num_classes, num_images)
    top = np.where(rng.random(num_images) < 0.85, label, (label + 1) % num_classes)
    prediction = np.where(certifies, top, ABSTAIN)
    counts_NK = np.empty((num_images, num_classes), dtype=np.int32)
    counts_NK[:, 1:] = (N - votes)[:, None] * others
    counts_NK[:, 1] += N - votes - counts_NK[:, 1:].sum(axis=1)
    counts_NK[:, 0] = votes
    counts_NK = np.take_along_axis(counts_NK, (np.arange(num_classes) - top[:, None]) % num_classes, axis=1)
    columns: dict[str, Any] = {
        "index": np.arange(num_images),
        "label": label,
        "prediction": prediction,
        "n_used": np.full(num_images, N),
        "counts0": _lists(counts_NK // (N // 100)),
        "counts": _lists(counts_NK),
        "count_top": votes,
        "p_lower": p_lower,
        "radius": np.where(certifies, certified_radius(p_lower, run.task.sigma), 0.0),
        "correct": prediction == label,
        "stop": ["full"] * num_images,
        "elapsed_s": rng.normal(0.5, 0.01, num_images),
    }
    shared = {name: pa.repeat(value, num_images) for name, value in layout_of(run).columns.items()}
    arrays = [
        pa.array(columns[field.name]).cast(field.type) if field.name in columns else shared[field.name].cast(field.type)
        for field in records.CERTIFICATION.schema
    ]
    return pa.Table.from_arrays(arrays, schema=records.CERTIFICATION.schema)


def _lists(values_NK: npt.NDArray[np.int32]) -> pa.Array:
    offsets = np.arange(len(values_NK) + 1, dtype=np.int32) * values_NK.shape[1]
    return pa.ListArray.from_arrays(offsets, values_NK.ravel())


def commands(store: Store, logs: str | None) -> dict[str, list[str]]:
    """By name, the command lines to measure, in an order in which each finds what it needs."""
    grid, results = f"grid={GRID}", f"results={store.root}"

    def analysis(module: str, function: str, *arguments: str) -> list[str]:
        return ["-c", _OURS.format(module=module, function=function), *arguments]

    few = "where={train_key: [" + ", ".join(run.train.key for run in (_run(nr, _ONE) for nr in range(4, 8))) + "]}"
    measured = {
        "aggregate": ["-c", _AGGREGATE, GRID, str(store.root)],
        "envelope": analysis("analysis.envelope", "envelope", grid, results),
        "envelope of 4 models": analysis("analysis.envelope", "envelope", grid, results, few),
        "envelope alpha=0.01": analysis("analysis.envelope", "envelope", grid, results, "alpha=0.01"),
        "report": analysis("analysis.report.__main__", "report", grid, results),
    }
    if logs is not None:
        arguments = ("grid=logs", results, f"source={logs}")
        measured["import_logs"] = analysis("analysis.import_logs", "import_logs", *arguments)
    if importlib.util.find_spec("duckdb"):
        measured["DuckDB: the envelope's cells"] = ["-c", _DUCKDB, str(store.records_path(GRID))]
    else:
        print("duckdb is not installed, so it is not measured")
    return measured


_ONE = IndexRange(start=0, stop=1)

# The system's own peak of a child counts from the fork, when the child still is its large parent.
_PEAK = """
import atexit, sys
atexit.register(lambda: print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))))
"""
_OURS = (
    _PEAK
    + """
from configs.entry import run_command
import importlib
act = lambda values: getattr(importlib.import_module("{module}"), "{function}")(values)
sys.exit(run_command("{function}", act, sys.argv[1:]))
"""
)
_AGGREGATE = (
    _PEAK
    + """
from pathlib import Path
from jobs.aggregate import run
from jobs.files.store import Store
from jobs.specs.units import AggregateUnit, Resources
run(AggregateUnit(grid=sys.argv[1]), Store(Path(sys.argv[2])), Resources(device="cpu"))
"""
)
QUERY = """
WITH certified AS (
    SELECT train_key, certify_key, r, count(*) FILTER (correct AND radius >= r) AS images
    FROM records, (SELECT unnest(range(17)) * 0.25 AS r)
    GROUP BY ALL
)
SELECT r, max(images) AS images, arg_max(train_key, images) AS winner
FROM certified GROUP BY r ORDER BY r
"""
"""The envelope's cells from the records, in SQL; docs/scale.md shows it."""
_DUCKDB = (
    _PEAK
    + f"""
import duckdb
records = duckdb.read_parquet(sys.argv[1])
print(duckdb.sql('''{QUERY}'''))
"""
)


def measure(command: Sequence[str]) -> tuple[float, float]:
    """CPU seconds and peak megabytes of a Python process of its own with two threads."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "ARROW_NUM_THREADS": "2"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *command], check=True, stdout=subprocess.PIPE, env=environment, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu_s, int(done.stdout.split()[-2]) / 1e3


def measure_plain_loop(store: Store, num_models: int, num_radii: int) -> tuple[float, float]:
    """CPU seconds that a plain loop over models and radii takes, scaled from a few of them.

    Returns:
        With the log read for every model and radius; with the log read once for every model.
    """
    models = load_grid(store, GRID, reading=Reading(more=("label", "elapsed_s"))).models[:_SAMPLED]
    logs = []
    for model in models:
        path = store.root / f"{model.label}.tsv"
        path.write_text("\n".join(log_lines(model)) + "\n")
        logs.append(path)
    radii = np.linspace(0.0, LAST_RADIUS, num_radii)
    began = time.process_time()
    for path in logs:
        for radius in radii[:_SAMPLED_RADII]:
            _accuracy(pd.read_csv(path, delimiter="\t"), radius)
    anew_s = (time.process_time() - began) / (len(logs) * _SAMPLED_RADII) * num_models * num_radii
    began = time.process_time()
    for path in logs:
        frame = pd.read_csv(path, delimiter="\t")
        for radius in radii:
            _accuracy(frame, radius)
    return anew_s, (time.process_time() - began) / len(logs) * num_models


def _accuracy(frame: pd.DataFrame, radius: float) -> float:
    return float(((frame["correct"] == 1) & (frame["radius"] >= radius)).mean())


def _num_inodes(store: Store) -> int:
    return sum(1 for _ in store.root.rglob("*"))


def _run(model_nr: int, indices: IndexRange) -> Run:
    sigma = (0.12, 0.25, 0.5, 1.0)[model_nr % 4]
    train = TrainSpec(
        dataset="digits",
        architecture="digits_cnn",
        method="gaussian" if model_nr < 4 else "smoothadv",
        attack="none" if model_nr < 4 else "pgd",
        sigma=sigma,
        epsilon=0.0 if model_nr < 4 else 0.25,
        num_steps=0 if model_nr < 4 else 2,
        epochs=1,
        batch_size=1,
        learning_rate=0.1,
        lr_step_epochs=1,
        lr_gamma=1.0,
        momentum=0.0,
        weight_decay=0.0,
        seed=0,
        m_train=1 if model_nr < 4 else model_nr // 4,
    )
    certify = CertifySpec(train_key=train.key, sigma_cert=sigma, n0=100, n=N, alpha=ALPHA, seed=0)
    return Run(train=train, task=certify, indices=indices)


if __name__ == "__main__":
    main()
