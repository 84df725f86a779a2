"""python -m benchmarks.certify: compares certification with a plain loop, alternating in one process.

The plain loop works like public certifiers: one image at a time, float32, channels first, the
network as it was trained, noise from torch, votes copied to the host after every batch. Our side is
what ``jobs.certify`` runs, with the settings of a job. Weights and images are random, which does not
change the speed.

Prints samples per second, the ratio, and the share of the device's compute bound (2 x multiply-adds
over the throughput of a large matrix product, measured here). With --noise-cost, also the additional
time for exact-grid noise, and on a GPU the time for drawing it there. Exit code 1 below --ratio.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor, nn

from benchmarks.bound import flops, matmul_flops_per_s
from benchmarks.machine import machine, spent_s
from benchmarks.plain import plain_settings
from jobs.datasets import DatasetInfo, dataset_info
from jobs.networks.classifier import Classifier, build_classifier
from jobs.networks.inference import for_inference
from jobs.processes.device import set_up_device
from jobs.specs.units import Resources
from smoothing.certify import LabelledImage, certify_images
from smoothing.device_noise import device_noise
from smoothing.distributions import ExactGridNoise, GaussianNoise, NoiseDistribution, noise_distribution
from smoothing.noise import BLOCK_ROWS, NoiseStream
from smoothing.sequential import Procedure

SIGMA, N0, ALPHA = 0.25, 100, 0.001
_NOISE_BLOCKS = 50
_DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Way = Callable[[Sequence[Tensor]], int]
"""Certifies images, returns the number of samples drawn."""


def plain_way(classifier: Classifier, info: DatasetInfo, n: int, batch_size: int) -> Way:
    """SampleUnderNoise of Cohen et al. 2019, written down plainly."""

    def votes(image_CHW: Tensor, num_samples: int) -> np.typing.NDArray[np.int64]:
        counts = np.zeros(info.num_classes, dtype=np.int64)
        left = num_samples
        while left > 0:
            this_batch = min(batch_size, left)
            left -= this_batch
            batch_BCHW = image_CHW.repeat((this_batch, 1, 1, 1))
            noise_BCHW = torch.randn_like(batch_BCHW) * SIGMA
            predictions = classifier(batch_BCHW + noise_BCHW).argmax(1)
            for prediction in predictions.cpu().numpy():
                counts[prediction] += 1
        return counts

    @plain_settings()
    @torch.no_grad()
    def certified(images: Sequence[Tensor]) -> int:
        device = next(classifier.buffers()).device
        on_device = [image_CHW.to(device) for image_CHW in images]
        return sum(int(votes(image_CHW, N0).sum() + votes(image_CHW, n).sum()) for image_CHW in on_device)

    return certified


def our_way(classifier: nn.Module, info: DatasetInfo, n: int, batch_size: int, distribution: NoiseDistribution) -> Way:
    """What a certification job does, but for reading and writing files."""
    procedure = Procedure(n0=N0, n=n, alpha=ALPHA)

    def certified(images: Sequence[Tensor]) -> int:
        labelled_images = (
            LabelledImage(index=index, label=0, image_CHW=image_CHW) for index, image_CHW in enumerate(images)
        )
        done = certify_images(
            classifier,
            labelled_images,
            procedure,
            distribution,
            num_classes=info.num_classes,
            seed=0,
            batch_size=batch_size,
            device=next(classifier.buffers()).device,
        )
        return sum(int(item.counts0.sum() + item.counts.sum()) for _, item in done)

    return certified


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; returns the exit code."""
    options = _options(arguments)
    device = set_up_device(Resources(device=options.device, threads=options.threads))
    info = dataset_info(options.dataset)
    torch.manual_seed(0)
    classifier = build_classifier(options.model, info).to(device).eval().requires_grad_(False)
    distribution = noise_distribution(options.noise, SIGMA, info.num_levels)
    began = spent_s("wall", device.type)
    ready = for_inference(classifier, options.precision, device, compile=options.compile)
    ways = {
        "plain loop": plain_way(classifier, info, options.n, options.plain_batch),
        "ours": our_way(ready, info, options.n, options.batch, distribution),
    }
    if options.noise_cost and options.noise == "gaussian":
        ways["ours, exact grid"] = our_way(
            ready, info, options.n, options.batch, ExactGridNoise(SIGMA, info.num_levels)
        )
    images = list(random_images(info, options.images))
    ways["ours"](images[:1])
    print(
        machine(),
        vars(options),
        f"ready after {spent_s('wall', device.type) - began:.1f} s, including compiling",
        sep="\n",
    )
    rates = _alternating(ways, images, options, device)
    flops_per_sample = flops(lambda: classifier(torch.zeros(1, *info.image_shape, device=device)))
    bound = matmul_flops_per_s(_DTYPES[options.precision], device, options.clock) / flops_per_sample
    if options.noise_cost:
        _print_noise_cost(info, 1 / statistics.median(rates["ours"]), options.clock)
        _print_device_noise(info, 1 / statistics.median(rates["ours"]), device)
    return _report(rates, bound, options)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.certify", description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--model", default="cifar_resnet110")
    parser.add_argument("--dataset", default="cifar10", help="data set that gives image shape and classes")
    parser.add_argument("--n", type=int, default=400)
    parser.add_argument("--images", type=int, default=1, help="images in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--plain-batch", type=int, default=400, help="400 is the default of the published code")
    parser.add_argument("--precision", default="float32", choices=sorted(_DTYPES))
    parser.add_argument(
        "--compile", default=False, nargs="?", const=True, metavar="MODE", help="compile, in this mode if given"
    )
    parser.add_argument("--noise", default="gaussian", choices=["gaussian", "exact_grid"], help="our noise")
    parser.add_argument("--noise-cost", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"], help="cpu: CPU seconds of this process")
    parser.add_argument("--ratio", type=float, default=1.35, help="smallest accepted ratio")
    return parser.parse_args(arguments)


def _alternating(
    ways: dict[str, Way], images: Sequence[Tensor], options: argparse.Namespace, device: torch.device
) -> dict[str, list[float]]:
    """Samples per second of each way in each round; the ways take turns within a round."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            began = spent_s(options.clock, device.type)
            num_samples = way(images)
            rates[name].append(num_samples / (spent_s(options.clock, device.type) - began))
    return rates


def _report(rates: dict[str, list[float]], bound: float, options: argparse.Namespace) -> int:
    plain = rates["plain loop"]
    rows = []
    for name, own in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(own, plain, strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        middle = statistics.median(own)
        rows.append((name, f"{middle:,.1f}", f"{statistics.median(ratios):.2f}", spread, f"{middle / bound:.1%}"))
    headers = ["", f"samples/s ({options.clock} clock)", "ratio", "over rounds", "of compute bound"]
    print(tabulate(rows, headers=headers, disable_numparse=True, tablefmt="pipe"))
    if "ours, exact grid" in rates:
        pairs = zip(rates["ours"], rates["ours, exact grid"], strict=True)
        print(f"exact-grid noise costs {statistics.median(ours / exact - 1 for ours, exact in pairs):+.1%}")
    ratio = statistics.median(ours / theirs for ours, theirs in zip(rates["ours"], plain, strict=True))
    return int(ratio < options.ratio)


def random_images(info: DatasetInfo, num_images: int) -> Iterator[Tensor]:
    """Images of the dataset's shape and levels, on the host, the same at each call."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(num_images):
        levels = torch.randint(info.num_levels + 1, info.image_shape, generator=generator)
        yield levels.float() / info.num_levels


def _print_noise_cost(info: DatasetInfo, sample_s: float, clock: str) -> None:
    """The noise of both distributions alone, the best of some blocks, to see differences that a busy machine hides."""
    stream = NoiseStream(seed=0, index=0, stage="estimation")
    distributions: list[NoiseDistribution] = [GaussianNoise(SIGMA), ExactGridNoise(SIGMA, info.num_levels)]
    center_CHW, best = torch.zeros(info.image_shape), [float("inf")] * len(distributions)
    for block_nr in range(_NOISE_BLOCKS):
        for number, distribution in enumerate(distributions):
            began = spent_s(clock, "cpu")
            distribution.inputs(center_CHW, torch.from_numpy(distribution.block(stream, block_nr, info.image_shape)))
            best[number] = min(best[number], (spent_s(clock, "cpu") - began) / BLOCK_ROWS)
    gaussian_s, exact_s = best
    print(
        f"noise alone: Gaussian {1e6 * gaussian_s:.1f}, exact grid {1e6 * exact_s:.1f} microseconds a sample; "
        f"the difference is {(exact_s - gaussian_s) / sample_s:+.2%} of a sample"
    )


def _print_device_noise(info: DatasetInfo, sample_s: float, device: torch.device) -> None:
    """The time to draw noisy images on a device, the best of some batches; nothing if the host draws."""
    noise, stream = (
        device_noise(ExactGridNoise(SIGMA, info.num_levels), device),
        NoiseStream(seed=0, index=0, stage="estimation"),
    )
    if noise is None:
        return
    centers_SCHW, num_blocks, best = torch.zeros(1, *info.image_shape, device=device), 10, float("inf")
    names = np.concatenate([stream.row_names(block_nr) for block_nr in range(num_blocks)])
    names_B4, slots_B = torch.from_numpy(names).to(device), torch.zeros(len(names), dtype=torch.int64, device=device)
    for _ in range(_NOISE_BLOCKS):
        began = spent_s("wall", device.type)
        noise(centers_SCHW, slots_B, names_B4)
        best = min(best, (spent_s("wall", device.type) - began) / len(names))
    print(f"noise on the device: {1e6 * best:.3f} microseconds per sample, {best / sample_s:.2%} of certifying it")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
