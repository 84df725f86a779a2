"""python -m benchmarks.train: SmoothAdv training steps, a plain loop and ours, alternating in one process.

The plain loop is how published code does it: the attack runs the network as it is, in evaluation
mode with parameters frozen, channels first, and reads the loss in every step. Both start from the
same weights and take the same images, labels and noise, so that their losses can be compared too.
Prints seconds per step, images per second and the ratio; ends with exit code 1 below --ratio.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.machine import machine, spent_s
from jobs.datasets import DatasetInfo, dataset_info
from jobs.distributed import Group
from jobs.models import Classifier, build_classifier
from jobs.specs import TrainSpec
from jobs.steps import Randomness, Stepper
from smoothing.attacks import smoothadv_pgd

MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4
WARMUP_BATCHES = 10

Step = Callable[[Tensor, Tensor], float]
"""Takes inputs_BCHW and labels_B, does one optimizer step, returns the mean loss."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is trained and how."""

    architecture: str
    dataset: str
    batch_size: int
    m_train: int
    num_steps: int
    sigma: float = 0.25
    epsilon: float = 0.5
    learning_rate: float = 0.1

    @property
    def info(self) -> DatasetInfo:
        return dataset_info(self.dataset)


def plain_steps(setting: Setting, classifier: Classifier, device: torch.device) -> Step:
    """Pseudocode 1 of Salman et al. 2019, written down plainly."""
    classifier = copy.deepcopy(classifier).to(device).train()
    optimizer = _optimizer(classifier, setting)
    generators = _generators(device)

    def step(inputs_BCHW: Tensor, labels_B: Tensor) -> float:
        shape = (len(inputs_BCHW), setting.m_train, *inputs_BCHW.shape[1:])
        drawn = torch.randn(shape, generator=generators.shared, device=device)
        noise_MBCHW = setting.sigma * drawn.transpose(0, 1)
        classifier.eval().requires_grad_(False)
        attacked_BCHW = smoothadv_pgd(
            classifier,
            inputs_BCHW,
            labels_B,
            noise_MBCHW,
            epsilon=setting.epsilon,
            num_steps=setting.num_steps,
            generator=generators.own,
        )
        classifier.train().requires_grad_(True)
        logits_RK = classifier((attacked_BCHW + noise_MBCHW).flatten(0, 1))
        loss = nn.functional.cross_entropy(logits_RK, labels_B.repeat(setting.m_train))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.item()

    return step


def our_steps(setting: Setting, classifier: Classifier, device: torch.device) -> Step:
    """The steps of ``jobs.steps``, as a training takes them."""
    classifier = copy.deepcopy(classifier).to(device)
    stepper = Stepper(
        spec=_spec(setting),
        classifier=classifier,
        replica=classifier,
        optimizer=_optimizer(classifier, setting),
        group=Group(),
    )
    generators = _generators(device)

    def step(inputs_BCHW: Tensor, labels_B: Tensor) -> float:
        (sums,) = stepper.steps(len(labels_B), inputs_BCHW, labels_B, setting.epsilon, generators)
        return float(sums[0] / sums[2])

    return step


def both_losses(setting: Setting, num_steps: int, device: torch.device) -> tuple[list[float], list[float]]:
    """Losses of the plain loop and of ours over the same steps, float32."""
    plain, ours = _both(setting, device)
    batches = list(_batches(setting, num_steps, device))
    return [plain(*batch) for batch in batches], [ours(*batch) for batch in batches]


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; returns the exit code."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    setting = Setting(
        architecture=options.model,
        dataset=options.dataset,
        batch_size=options.batch,
        m_train=options.m,
        num_steps=options.T,
    )
    print(machine(), f"{setting}, device {device}", sep="\n", flush=True)
    steps = _both(setting, device)
    seconds: tuple[list[float], list[float]] = ([], [])
    for number, batch in enumerate(_batches(setting, options.rounds + 1, device)):
        for step, spent in zip(steps, seconds, strict=True):
            began = spent_s(options.clock, device.type)
            step(*batch)
            if number:  # the first round warms up
                spent.append(spent_s(options.clock, device.type) - began)
    ratios = [plain / ours for plain, ours in zip(*seconds, strict=True)]
    for name, spent in zip(("plain loop", "ours"), seconds, strict=True):
        middle = statistics.median(spent)
        print(f"{name:10} {middle:8.3f} s a step ({options.clock} clock), {options.batch / middle:8.1f} images/s")
    ratio = statistics.median(ratios)
    print(f"ratio {ratio:.2f} (median of {len(ratios)} rounds, {min(ratios):.2f} to {max(ratios):.2f})")
    return int(ratio < options.ratio)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.train", description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--model", default="cifar_resnet110")
    parser.add_argument("--dataset", default="cifar10", help="whose image shape is taken; images are random")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--m", type=int, default=2)
    parser.add_argument("--T", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"], help="cpu: this process's seconds alone")
    parser.add_argument("--ratio", type=float, default=1.4, help="what must be gained at least")
    return parser.parse_args(arguments)


def _both(setting: Setting, device: torch.device) -> tuple[Step, Step]:
    torch.manual_seed(0)
    classifier = build_classifier(setting.architecture, setting.info)
    with torch.no_grad():  # fresh statistics are those of no data, and make the attacked network explode
        for inputs_BCHW, _ in _batches(setting, WARMUP_BATCHES, torch.device("cpu")):
            classifier(inputs_BCHW)
    return plain_steps(setting, classifier, device), our_steps(setting, classifier, device)


def _batches(setting: Setting, num_batches: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(num_batches):
        inputs_BCHW = torch.rand((setting.batch_size, *setting.info.image_shape), generator=generator)
        labels_B = torch.randint(setting.info.num_classes, (setting.batch_size,), generator=generator)
        yield inputs_BCHW.to(device), labels_B.to(device)


def _optimizer(classifier: nn.Module, setting: Setting) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        classifier.parameters(), lr=setting.learning_rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )


def _generators(device: torch.device) -> Randomness:
    return Randomness(
        shared=torch.Generator(device).manual_seed(2),
        own=torch.Generator(device).manual_seed(3),
    )


def _spec(setting: Setting) -> TrainSpec:
    return TrainSpec(
        dataset=setting.dataset,
        architecture=setting.architecture,
        method="smoothadv",
        attack="pgd",
        sigma=setting.sigma,
        epsilon=setting.epsilon,
        m_train=setting.m_train,
        num_steps=setting.num_steps,
        epochs=1,
        batch_size=setting.batch_size,
        learning_rate=setting.learning_rate,
        lr_step_epochs=1,
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        lr_gamma=0.1,
        seed=0,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
