"""python -m benchmarks.envelope: the envelope of 640 models x 10,000 images, beside a plain loop.

Makes a grid of the paper's size with made-up but plausible radii in a temporary folder, then measures

- the command ``python -m analysis.envelope grid=made_up step=0.01`` as a user runs it, with start-up, tables
  and figures (wall time, CPU time and peak memory), and
- how long a plain loop takes for the same curves, on a few of the models and scaled to all: it reads a
  model's log and scans it for each radius, once with the log reread for each radius and once, as the
  published script has it, read once per model.

    python -m benchmarks.envelope                         the real size; about two minutes, 5 GB to prepare
    python -m benchmarks.envelope --models 64 --images 1000
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis.export_tsv import log_lines
from analysis.load import load_grid
from jobs.aggregate import FINGERPRINT_KEY
from jobs.files import records
from jobs.files.layouts import CERTIFICATION, layout_of
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
_SAMPLED = 3  # models that the plain loop is timed on
_SAMPLED_RADII = 20  # radii for which it rereads the log


def main() -> None:
    """Prepare, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=640)
    parser.add_argument("--images", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        store = Store(Path(folder))
        began = time.perf_counter()
        prepare(store, options.models, options.images)
        print(f"made {options.models} models x {options.images} images in {time.perf_counter() - began:.0f} s")
        wall_s, cpu_s, peak_gb = measure_command(store)
        num_radii = round(LAST_RADIUS / STEP) + 1
        print(f"analysis.envelope, {num_radii} radii: {wall_s:.2f} s ({cpu_s:.2f} s of CPU), {peak_gb:.2f} GB at most")
        anew_s, once_s = measure_plain_loop(store, options.models, num_radii)
        print(f"plain loop, log read for each model and radius: {anew_s:.0f} s (scaled), ratio {anew_s / wall_s:.0f}")
        print(f"plain loop, log read once for each model: {once_s:.0f} s (scaled), ratio {once_s / wall_s:.0f}")


def prepare(store: Store, num_models: int, num_images: int) -> None:
    """Write a complete grid: manifest, one (empty, for its name) shard and checkpoint per run, and the records."""
    rng = np.random.default_rng(0)
    indices = IndexRange(start=0, stop=num_images)
    runs = [_run(model_nr, indices) for model_nr in range(num_models)]
    manifest = Manifest(grid=GRID, runs=tuple(runs))
    write_manifest(store.manifest_path(GRID), manifest)
    tables = []
    for run in runs:
        shard = store.shard_path(run.place, indices)
        shard.parent.mkdir(parents=True)
        shard.write_bytes(b"x")  # the aggregated records are current: a listing is all that is asked of the shards
        tables.append(made_up_rows(run, rng))
    metadata = {"source": "benchmark", FINGERPRINT_KEY: manifest.fingerprint}
    records.write_records(store.records_path(GRID), pa.concat_tables(tables), metadata)


def made_up_rows(run: Run, rng: np.random.Generator) -> pa.Table:
    """Records of a model whose images' true probabilities are spread as in the published logs."""
    num_images = len(run.indices)
    margin = rng.normal(loc=1.0 - run.train.sigma, scale=1.2, size=num_images)
    probability = 1.0 / (1.0 + np.exp(-2.0 * margin))
    votes = rng.binomial(N, probability)
    p_lower = clopper_pearson_lower(votes, N, ALPHA)
    certifies = p_lower >= 0.5
    label = rng.integers(0, 10, num_images)
    is_right = rng.random(num_images) < 0.85
    prediction = np.where(certifies, np.where(is_right, label, (label + 1) % 10), ABSTAIN)
    both = np.column_stack([votes, N - votes]).astype(np.int32).ravel()
    offsets = pa.array(2 * np.arange(num_images + 1), pa.int32())
    columns = {
        **{name: pa.array([value] * num_images) for name, value in layout_of(run).columns.items()},
        "index": pa.array(np.arange(num_images)),
        "label": pa.array(label),
        "prediction": pa.array(prediction),
        "n_used": pa.array(np.full(num_images, N)),
        "counts0": pa.ListArray.from_arrays(offsets, both),
        "counts": pa.ListArray.from_arrays(offsets, both),
        "count_top": pa.array(votes),
        "p_lower": pa.array(p_lower),
        "radius": pa.array(np.where(certifies, certified_radius(p_lower, run.task.sigma), 0.0)),
        "correct": pa.array(prediction == label),
        "stop": pa.array(["full"] * num_images),
        "elapsed_s": pa.array(np.full(num_images, 0.5)),
    }
    arrays = [columns[field.name].cast(field.type) for field in CERTIFICATION.schema]
    return pa.Table.from_arrays(arrays, schema=CERTIFICATION.schema)


def measure_command(store: Store) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak gigabytes of the command, in a process of its own with two threads."""
    radii = ",".join(f"{STEP * number:.2f}" for number in range(round(LAST_RADIUS / STEP) + 1))
    arguments = [f"grid={GRID}", f"results={store.root}", f"radii=[{radii}]"]
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "ARROW_NUM_THREADS": "2"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-c", _WITH_PEAK, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment, text=True)
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall_s, cpu_s, int(done.stdout.split()[-2]) / 1e6


# The system's own peak of a child counts from the fork, when the child still is its large parent.
_WITH_PEAK = """
import sys
from analysis.envelope import envelope
from configs.entry import run_command
code = run_command("envelope", envelope, sys.argv[1:])
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(code)
"""


def measure_plain_loop(store: Store, num_models: int, num_radii: int) -> tuple[float, float]:
    """Seconds that a plain loop over models and radii takes, scaled from a few of them.

    Returns:
        With the log read for every model and radius; with the log read once for every model.
    """
    models = load_grid(store, GRID, more=("label", "elapsed_s")).models[:_SAMPLED]
    logs = []
    for model in models:
        path = store.root / f"{model.label}.tsv"
        path.write_text("\n".join(log_lines(model)) + "\n")
        logs.append(path)
    radii = np.linspace(0.0, LAST_RADIUS, num_radii)
    began = time.perf_counter()
    for path in logs:
        for radius in radii[:_SAMPLED_RADII]:
            _accuracy(pd.read_csv(path, delimiter="\t"), radius)
    anew_s = (time.perf_counter() - began) / (len(logs) * _SAMPLED_RADII) * num_models * num_radii
    began = time.perf_counter()
    for path in logs:
        frame = pd.read_csv(path, delimiter="\t")
        for radius in radii:
            _accuracy(frame, radius)
    return anew_s, (time.perf_counter() - began) / len(logs) * num_models


def _accuracy(frame: pd.DataFrame, radius: float) -> float:
    return float(((frame["correct"] == 1) & (frame["radius"] >= radius)).mean())


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
        seed=model_nr,
    )
    certify = CertifySpec(train_key=train.key, sigma_cert=sigma, n0=100, n=N, alpha=ALPHA, seed=0)
    return Run(train=train, task=certify, indices=indices)


if __name__ == "__main__":
    main()
