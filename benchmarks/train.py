"""python -m benchmarks.train: compares SmoothAdv training steps with a plain loop, alternating in one process.

Both start from the same weights and use the same images, labels and noise. Prints seconds per step,
images per second, the share of the device's compute bound (operations of the step over the
throughput of a large matrix product, measured here) and the ratio. Exit code 1 below --ratio. With
--losses N, it compares the losses of N steps instead of the time: ours, and as a reference the plain
loop's after its weights were moved by one unit in the last place.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence

import torch
from tabulate import tabulate

from benchmarks.bound import flops, matmul_flops_per_s
from benchmarks.machine import machine, spent_s
from benchmarks.training_loops import Setting, batches, fresh_classifier, losses, nudged, our_steps, plain_steps
from jobs.processes.device import set_up_device
from jobs.specs.units import Resources


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; returns the exit code."""
    options = _options(arguments)
    device = set_up_device(Resources(device=options.device, threads=options.threads))
    setting = Setting(
        architecture=options.model,
        dataset=options.dataset,
        batch_size=options.batch,
        m_train=options.m,
        num_steps=options.T,
        learning_rate=options.learning_rate,
        precision=options.precision,
    )
    print(machine(), f"{setting}, device {device}, compile {options.compile}", sep="\n", flush=True)
    if options.losses:
        _print_losses(setting, options.losses, device)
        return 0
    seconds = _alternating(setting, options, device)
    ratios = [plain / ours for plain, ours in zip(*seconds, strict=True)]
    least_s = _least_s(setting, device, options.clock)
    rows = []
    for name, spent in zip(("plain loop", "ours"), seconds, strict=True):
        middle = statistics.median(spent)
        rows.append((name, f"{middle:.3f}", f"{options.batch / middle:.1f}", f"{least_s / middle:.1%}"))
    headers = ["", f"s a step ({options.clock} clock)", "images/s", "of compute bound"]
    print(tabulate(rows, headers=headers, disable_numparse=True, tablefmt="pipe"))
    ratio = statistics.median(ratios)
    print(f"ratio {ratio:.2f} (median of {len(ratios)} rounds, {min(ratios):.2f} to {max(ratios):.2f})")
    return int(ratio < options.ratio)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.train", description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--model", default="cifar_resnet110")
    parser.add_argument("--dataset", default="cifar10", help="data set that gives the image shape; images are random")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--m", type=int, default=2)
    parser.add_argument("--T", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"], help="our precision")
    parser.add_argument(
        "--compile",
        default=False,
        nargs="?",
        const=True,
        metavar="MODE",
        help="compile our networks, in this mode if given",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"], help="cpu: CPU seconds of this process")
    parser.add_argument("--ratio", type=float, default=1.4, help="smallest accepted ratio")
    parser.add_argument("--losses", type=int, metavar="N", help="compare the losses of N steps")
    return parser.parse_args(arguments)


def _alternating(
    setting: Setting, options: argparse.Namespace, device: torch.device
) -> tuple[list[float], list[float]]:
    """Seconds of each step of the plain loop and of ours; the first ones, which warm up, left out."""
    classifier = fresh_classifier(setting)
    steps = plain_steps(setting, classifier, device), our_steps(setting, classifier, device, options.compile)
    seconds: tuple[list[float], list[float]] = ([], [])
    for number, batch in enumerate(batches(setting, options.rounds + 1, device)):
        for step, spent in zip(steps, seconds, strict=True):
            began = spent_s(options.clock, device.type)
            step(*batch)
            if number:
                spent.append(spent_s(options.clock, device.type) - began)
    return seconds


def _least_s(setting: Setting, device: torch.device, clock: str) -> float:
    """Seconds of a step that did nothing but multiply and add, at the speed of a large matrix product."""
    step, (batch,) = plain_steps(setting, fresh_classifier(setting), device), batches(setting, 1, device)
    dtype = torch.bfloat16 if setting.precision == "bfloat16" else torch.float32
    return flops(lambda: step(*batch)) / matmul_flops_per_s(dtype, device, clock)


def _print_losses(setting: Setting, num_steps: int, device: torch.device) -> None:
    classifier = fresh_classifier(setting)
    plain = losses(plain_steps(setting, classifier, device), setting, num_steps, device)
    others = {
        "ours": our_steps(setting, classifier, device),
        "plain loop, moved": plain_steps(setting, nudged(classifier), device),
    }
    rows = []
    for name, step in others.items():
        found = losses(step, setting, num_steps, device)
        differences = [abs(one - other) / abs(other) for one, other in zip(found, plain, strict=True)]
        rows.append((name, f"{statistics.median(differences):.1e}", f"{max(differences):.1e}"))
    headers = [f"{num_steps} losses against the plain loop's", "median relative difference", "largest"]
    print(tabulate(rows, headers=headers, disable_numparse=True, tablefmt="pipe"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
