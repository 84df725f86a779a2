"""python -m benchmarks.adaptive: compares adaptive certification with all n draws.

Trains digits models (or uses those of an earlier run with the same --results), certifies the same
images in both modes with the same noise, and prints the number of samples and every cell of the
table. Exit code 1 if adaptive mode saves less than --ratio, or if a cell differs by more than four
standard deviations of its Monte-Carlo error.
"""

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import special
from tabulate import tabulate

from benchmarks.machine import machine
from configs.composition import compose_config
from jobs import train
from jobs.datasets import dataset_info, load_images
from jobs.files.store import Store
from jobs.networks.checkpoint import load_classifier
from jobs.networks.inference import for_inference
from jobs.specs.runs import Run
from jobs.specs.units import Resources, TrainUnit
from pipeline.request.config import parse_launch
from smoothing.bounds import min_count_for
from smoothing.certificate import Certificate
from smoothing.certify import LabelledImage, certify_images
from smoothing.distributions import noise_distribution
from smoothing.sequential import Procedure

BLOCKS = (
    "grid.blocks=[{method: gaussian, sigma: [0.12, 0.25, 0.5]}, {method: smoothadv, attack: pgd, "
    "sigma: [0.12, 0.25, 0.5], epsilon: 0.5, m_train: 4, num_steps: 2, warmup_epochs: 6}]"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Certified:
    """One model's images certified one way."""

    labels: list[int]
    certificates: list[Certificate]
    elapsed_s: float

    @property
    def num_samples(self) -> int:
        return sum(int(item.counts0.sum() + item.counts.sum()) for item in self.certificates)

    def num_certified(self, radius: float) -> int:
        pairs = zip(self.labels, self.certificates, strict=True)
        return sum(item.prediction == label and item.radius >= radius for label, item in pairs)


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; returns the exit code."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(Path(options.results or scratch))
        runs = _runs(store, options)
        print(machine(), f"{len(runs)} models, {len(runs[0].indices)} images each, n={options.n}", sep="\n", flush=True)
        both = [_both_ways(run, store) for run in runs]
    num_fixed, num_adaptive = (sum(pair[way].num_samples for pair in both) for way in (0, 1))
    _print_samples(runs, both)
    num_off = _print_cells(runs, both)
    print(f"overall {num_fixed:,} samples against {num_adaptive:,}: {num_fixed / num_adaptive:.2f} times fewer")
    print(f"{num_off} cells off by more than four standard deviations of their Monte-Carlo error")
    return int(num_fixed < options.ratio * num_adaptive or num_off > 0)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.adaptive", description=__doc__)
    parser.add_argument("--results", help="folder for the trained models, which a later run uses again")
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--step", type=int, default=10, help="certify every STEP-th of the 500 test images")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ratio", type=float, default=3.5, help="smallest accepted ratio of samples")
    return parser.parse_args(arguments)


def _runs(store: Store, options: argparse.Namespace) -> tuple[Run, ...]:
    overrides = ["grid=digits", "certify=adaptive", f"certify.n={options.n}", f"certify.indices.step={options.step}"]
    values = compose_config("launch", [*overrides, "grid.name=adaptive", BLOCKS])
    runs = parse_launch(values).manifest.runs
    for run in runs:
        train.run(TrainUnit(train=run.train), store, Resources(device="cpu", threads=options.threads))
    return runs


def _both_ways(run: Run, store: Store) -> tuple[Certified, Certified]:
    adaptive = run.certify
    fixed = Procedure(n0=adaptive.n0, n=adaptive.n, alpha=adaptive.alpha)
    return _certified(run, store, fixed), _certified(run, store, adaptive)


def _certified(run: Run, store: Store, how: Procedure) -> Certified:
    device, info = torch.device("cpu"), dataset_info(run.train.dataset)
    classifier = load_classifier(store.checkpoint_path(run.train.key), run.train, device).classifier
    images = load_images(run.train.dataset, run.certify.split)
    labelled_images = (
        LabelledImage(index=index, image_CHW=torch.from_numpy(images.image(index)), label=int(images.labels[index]))
        for index in run.indices
    )
    began = time.perf_counter()
    done = certify_images(
        for_inference(classifier, "float32", device),
        labelled_images,
        how,
        noise_distribution(run.certify.noise, run.certify.sigma_cert, info.num_levels),
        num_classes=info.num_classes,
        seed=run.certify.seed,
        batch_size=1000,
    )
    by_index = {image.index: certificate for image, certificate in done}
    return Certified(
        labels=[int(images.labels[index]) for index in run.indices],
        certificates=[by_index[index] for index in run.indices],
        elapsed_s=time.perf_counter() - began,
    )


def _print_samples(runs: Sequence[Run], both: Sequence[tuple[Certified, Certified]]) -> None:
    rows = [
        (
            run.train.key,
            fixed.num_samples,
            adaptive.num_samples,
            fixed.num_samples / adaptive.num_samples,
            fixed.elapsed_s,
            adaptive.elapsed_s,
        )
        for run, (fixed, adaptive) in zip(runs, both, strict=True)
    ]
    headers = ["model", "fixed", "adaptive", "ratio", "fixed s", "adaptive s"]
    print(tabulate(rows, headers=headers, intfmt=",", floatfmt=".1f"))


def _print_cells(runs: Sequence[Run], both: Sequence[tuple[Certified, Certified]]) -> int:
    """Certified accuracy in per cent at every multiple of radius_step; returns how many cells are off."""
    rows, num_off = [], 0
    for run, (fixed, adaptive) in zip(runs, both, strict=True):
        step = run.certify.radius_step
        assert step is not None
        most = max((item.radius for item in fixed.certificates), default=0.0)
        for radius in np.arange(math.floor(most / step) + 1) * step:
            counts = fixed.num_certified(radius), adaptive.num_certified(radius)
            deviation = _monte_carlo_deviation(run, fixed, float(radius))
            is_off = abs(counts[0] - counts[1]) > 4 * math.sqrt(2) * deviation
            num_off += is_off
            cells = [100 * count / len(fixed.labels) for count in counts]
            rows.append([run.train.key, radius, *cells, 100 * deviation / len(fixed.labels), "off" if is_off else ""])
    headers = ["model", "r", "fixed %", "adaptive %", "Monte-Carlo sd", ""]
    print(tabulate(rows, headers=headers, floatfmt=("", ".2f", ".1f", ".1f", ".2f", "")))
    return num_off


def _monte_carlo_deviation(run: Run, fixed: Certified, radius: float) -> float:
    """Standard deviation, over the noise, of how many images are certified at a radius."""
    spec = run.certify
    needed = min_count_for(max(0.5, float(special.ndtr(radius / spec.sigma_cert))), spec.n, spec.alpha)
    if needed is None:
        return 0.0
    right = [
        item for label, item in zip(fixed.labels, fixed.certificates, strict=True) if np.argmax(item.counts0) == label
    ]
    shares = np.clip(np.array([item.count_top / spec.n for item in right]), 0.5 / spec.n, 1 - 0.5 / spec.n)
    chances = special.betainc(needed, spec.n - needed + 1, shares)  # P(Binomial(n, share) >= needed)
    return float(np.sqrt(np.sum(chances * (1 - chances))))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
