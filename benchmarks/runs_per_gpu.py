"""python -m benchmarks.runs_per_gpu: throughput of several trainings at once on one device.

Starts K processes that train the same kind of model, each like a worker of ``cluster.runs_per_gpu=K``,
and measures from the moment when all are ready to the end of the last. Prints images per second of all
together for each K of --runs, and the ratio to the first: above 1, sharing the GPU pays.
"""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier

from tabulate import tabulate

from benchmarks.machine import machine, spent_s
from benchmarks.training_loops import Setting, batches, fresh_classifier, our_steps
from jobs.processes.device import set_up_device
from jobs.specs.units import Resources

_WARM_UP_STEPS = 3
_PATIENCE_S = 600.0


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; returns the exit code."""
    options = _options(arguments)
    setting = Setting(
        architecture=options.model,
        dataset=options.dataset,
        batch_size=options.batch,
        m_train=options.m,
        num_steps=options.T,
        precision=options.precision,
    )
    print(machine(), f"{setting}, device {options.device}, {options.threads} threads each", sep="\n", flush=True)
    rates = [_images_per_s(num_runs, setting, options) for num_runs in options.runs]
    rows = [
        (num_runs, f"{rate:,.1f}", f"{rate / num_runs:,.1f}", f"{rate / rates[0]:.2f}")
        for num_runs, rate in zip(options.runs, rates, strict=True)
    ]
    headers = ["runs at once", "images/s, all", "images/s, each", f"against {options.runs[0]}"]
    print(tabulate(rows, headers=headers, disable_numparse=True, tablefmt="pipe"))
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.runs_per_gpu", description=__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--model", default="cifar_resnet20")
    parser.add_argument("--dataset", default="cifar10", help="data set that gives the image shape; images are random")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--m", type=int, default=2)
    parser.add_argument("--T", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--compile", default=False, nargs="?", const=True, metavar="MODE")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    return parser.parse_args(arguments)


def _images_per_s(num_runs: int, setting: Setting, options: argparse.Namespace) -> float:
    context = multiprocessing.get_context("spawn")
    ready, spans = context.Barrier(num_runs), context.SimpleQueue()
    processes = [context.Process(target=_train, args=(setting, options, ready, spans)) for _ in range(num_runs)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError(f"of {num_runs} runs at once, some failed: see above")
    began, ended = zip(*(spans.get() for _ in processes), strict=True)
    return float(num_runs * options.steps * setting.batch_size / (max(ended) - min(began)))


def _train(setting: Setting, options: argparse.Namespace, ready: Barrier, spans: object) -> None:
    """One run: warms up, waits for the others, and says when it began and ended."""
    device = set_up_device(Resources(device=options.device, threads=options.threads))
    step = our_steps(setting, fresh_classifier(setting), device, options.compile)
    todo = list(batches(setting, _WARM_UP_STEPS + options.steps, device))
    for batch in todo[:_WARM_UP_STEPS]:
        step(*batch)
    spent_s("wall", device.type)
    ready.wait(_PATIENCE_S)
    began = time.monotonic()  # the same clock in all processes
    for batch in todo[_WARM_UP_STEPS:]:
        step(*batch)
    spent_s("wall", device.type)
    spans.put((began, time.monotonic()))  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
