"""python -m benchmarks.sweep: speed of certification on one device with all combinations of some settings.

The settings are rows per batch, precision, layout of the activations (certification uses NHWC), and
the mode of torch.compile. Prints samples per second of each combination, the fastest first, and the
time until it was ready. If a combination fails, the reason is printed and the others continue.
"""

import argparse
import itertools
import statistics
import sys
from collections.abc import Sequence

import torch
from tabulate import tabulate
from torch import Tensor, nn

from benchmarks.certify import SIGMA, our_way, random_images
from benchmarks.machine import machine, spent_s
from jobs.datasets import DatasetInfo, dataset_info
from jobs.networks.classifier import Classifier, build_classifier
from jobs.networks.folding import FoldedClassifier
from jobs.networks.inference import compiled, for_inference
from jobs.processes.device import set_up_device
from jobs.specs.certify import Precision
from jobs.specs.units import Compile, Resources
from smoothing.distributions import ExactGridNoise

_COMPILE: dict[str, Compile] = {
    "no": False,
    "default": True,
    "reduce-overhead": "reduce-overhead",
    "max-autotune": "max-autotune",
}


class ChannelsFirst(nn.Module):
    """A folded classifier whose activations are laid out NCHW."""

    def __init__(self, folded: FoldedClassifier) -> None:
        super().__init__()
        self._folded = folded
        folded.network.to(memory_format=torch.contiguous_format)

    def forward(self, inputs_BCHW: Tensor) -> Tensor:
        dtype = next(self._folded.network.parameters()).dtype
        logits: Tensor = self._folded.network(self._folded.prepared(inputs_BCHW).to(dtype).contiguous())
        return logits


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; returns the exit code."""
    options = _options(arguments)
    device = set_up_device(Resources(device=options.device, threads=options.threads))
    info = dataset_info(options.dataset)
    torch.manual_seed(0)
    classifier = build_classifier(options.model, info).to(device).eval().requires_grad_(False)
    print(machine(), vars(options), sep="\n", flush=True)
    rows = []
    for precision, layout, mode in itertools.product(options.precision, options.layout, options.compile):
        for batch in options.batch:
            setting = (precision, layout, mode, batch)
            try:
                rate, ready_s = _measure(classifier, info, device, setting, options)
                rows.append((rate, *setting, f"{rate:,.0f}", f"{ready_s:.1f}"))
            except Exception as error:  # out of memory, say, or a mode that this device does not have
                rows.append((0.0, *setting, f"{type(error).__name__}: {str(error).partition(chr(10))[0][:60]}", ""))
            print(*rows[-1][1:], flush=True)
    rows.sort(key=lambda row: -row[0])
    headers = ["precision", "layout", "compile", "batch", "samples/s", "ready after s"]
    print(tabulate([row[1:] for row in rows], headers=headers, disable_numparse=True, tablefmt="pipe"))
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.sweep", description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--model", default="cifar_resnet110")
    parser.add_argument("--dataset", default="cifar10", help="data set that gives image shape and classes")
    parser.add_argument("--batch", type=int, nargs="+", default=[300, 1000, 2000, 4000], help="multiples of 100")
    parser.add_argument("--precision", nargs="+", default=["bfloat16", "float16", "tf32", "float32"])
    parser.add_argument("--layout", nargs="+", default=["NHWC", "NCHW"], choices=["NHWC", "NCHW"])
    parser.add_argument("--compile", nargs="+", default=["no", "default", "reduce-overhead"], choices=sorted(_COMPILE))
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--images", type=int, default=2, help="images in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"], help="cpu: CPU seconds of this process")
    return parser.parse_args(arguments)


def _measure(
    classifier: Classifier,
    info: DatasetInfo,
    device: torch.device,
    setting: tuple[Precision, str, str, int],
    options: argparse.Namespace,
) -> tuple[float, float]:
    """Samples per second, and seconds until the first image was done."""
    precision, layout, mode, batch = setting
    torch._dynamo.reset()
    began = spent_s("wall", device.type)
    ready = for_inference(classifier, precision, device)
    if layout == "NCHW":
        assert isinstance(ready, FoldedClassifier)
        ready = ChannelsFirst(ready).eval()
    way = our_way(
        compiled(ready, _COMPILE[mode], is_constant=True),
        info,
        options.n,
        batch,
        ExactGridNoise(SIGMA, info.num_levels),
    )
    images = list(random_images(info, options.images))
    way(images[:1])
    ready_s = spent_s("wall", device.type) - began
    rates = []
    for _ in range(options.rounds):
        began = spent_s(options.clock, device.type)
        num_samples = way(images)
        rates.append(num_samples / (spent_s(options.clock, device.type) - began))
    return statistics.median(rates), ready_s


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
