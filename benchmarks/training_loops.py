"""SmoothAdv training steps of a plain loop and of ours, from the same weights, images, labels and noise.

The plain loop works like published code: the attack runs the unfolded network in evaluation mode
with frozen parameters, channels first, and reads the loss in every step.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.plain import plain_settings
from jobs.datasets import DatasetInfo, dataset_info
from jobs.networks.classifier import Classifier, build_classifier
from jobs.specs.train import TrainPrecision, TrainSpec
from jobs.specs.units import Compile
from jobs.training.distributed import Group
from jobs.training.feeding import ImageBatch
from jobs.training.steps import Epoch, Stepper
from smoothing.attacks import smoothadv_pgd

MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4
WARMUP_BATCHES = 10

Step = Callable[[Tensor, Tensor], Tensor]
"""Takes inputs_BCHW and labels_B, does one optimizer step, returns the mean loss, on the device."""


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
    precision: TrainPrecision = "float32"

    @property
    def info(self) -> DatasetInfo:
        return dataset_info(self.dataset)


def plain_steps(setting: Setting, classifier: Classifier, device: torch.device) -> Step:
    """Pseudocode 1 of Salman et al. 2019, written down plainly."""
    classifier = copy.deepcopy(classifier).to(device).train()
    optimizer = _optimizer(classifier, setting)
    generators = _epoch(device, setting)

    @plain_settings()
    def step(inputs_BCHW: Tensor, labels_B: Tensor) -> Tensor:
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
        loss.item()  # as they do, for the progress line
        return loss.detach()

    return step


def our_steps(setting: Setting, classifier: Classifier, device: torch.device, compile: Compile = False) -> Step:
    """The steps of ``jobs.training.steps``, as a training takes them."""
    classifier = copy.deepcopy(classifier).to(device)
    stepper = Stepper(
        spec=_spec(setting),
        classifier=classifier,
        replica=classifier,
        optimizer=_optimizer(classifier, setting),
        group=Group(),
        compile=compile,
    )
    epoch = _epoch(device, setting)

    def step(inputs_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        indices_B = torch.arange(len(labels_B), device=device)
        images = ImageBatch(num_images=len(labels_B), inputs_BCHW=inputs_BCHW, labels_B=labels_B, indices_B=indices_B)
        (sums,) = stepper.steps(images, epoch)
        return sums[0] / sums[2]

    return step


def losses(step: Step, setting: Setting, num_steps: int, device: torch.device) -> list[float]:
    """The losses of the first steps on the batches that all loops are given."""
    return [float(step(*batch)) for batch in batches(setting, num_steps, device)]


def nudged(classifier: Classifier) -> Classifier:
    """A copy whose weights are each the next number above or below, by chance: as far as rounding goes, the same."""
    near, generator = copy.deepcopy(classifier), torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in near.parameters():
            ends = torch.where(torch.rand(parameter.shape, generator=generator) < 0.5, -torch.inf, torch.inf)
            parameter.copy_(torch.nextafter(parameter, ends.to(parameter)))
    return near


def fresh_classifier(setting: Setting) -> Classifier:
    """The weights that all loops begin with, on the CPU."""
    torch.manual_seed(0)
    classifier = build_classifier(setting.architecture, setting.info)
    with torch.no_grad():  # fresh statistics are those of no data, and make the attacked network explode
        for inputs_BCHW, _ in batches(setting, WARMUP_BATCHES, torch.device("cpu")):
            classifier(inputs_BCHW)
    return classifier


def batches(setting: Setting, num_batches: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Random images and labels, the same at each call."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(num_batches):
        inputs_BCHW = torch.rand((setting.batch_size, *setting.info.image_shape), generator=generator)
        labels_B = torch.randint(setting.info.num_classes, (setting.batch_size,), generator=generator)
        yield inputs_BCHW.to(device), labels_B.to(device)


def _optimizer(classifier: nn.Module, setting: Setting) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        classifier.parameters(), lr=setting.learning_rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )


def _epoch(device: torch.device, setting: Setting) -> Epoch:
    return Epoch(
        number=0,
        epsilon=setting.epsilon,
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
        precision=setting.precision,
        seed=0,
    )
