"""Tests, before a launch, the properties that trainings and certificates rely on.

A certificate holds for a function of one image. Statistics of a batch, randomness of the network's own or
a branch for a device would make it hold for nothing, and no later check would see it. So the network is
run here on made-up images, and the method takes two steps, twice, on the CPU.

Shapes: R rows of a batch, C H W image, K classes.
"""

import contextlib
import copy
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jobs.datasets import DatasetInfo
from jobs.errors import ConfigError
from jobs.networks.classifier import Classifier, classifier_for
from jobs.networks.folding import FoldedClassifier
from jobs.networks.inference import DTYPES
from jobs.plugins import isolated, loading, settings
from jobs.plugins.guards import PROCESS_WIDE, guarded
from jobs.preflight.recorder import Operation, course, course_on, first_apart
from jobs.specs.certify import Precision
from jobs.specs.train import TrainSpec, train_fields
from jobs.training.distributed import Group
from jobs.training.feeding import ImageBatch
from jobs.training.steps import Epoch, Stepper
from jobs.validation import build
from smoothing.counts import BaseClassifier, call_shape, cpu_rows

_NUM_ROWS, _NUM_ROWS_LARGE, _LARGE = 64, 8, 3 * 64 * 64
_TOLERANCE = 1e-4  # of the largest logit: the CPU adds up batches of other sizes in another order
_TOLERANCE_AGAIN = 1e-6  # of the same batch
_TOLERANCE_ROUNDED = 0.02  # in 16 bits
_MAX_S = 2.0  # of a forward pass
_NOT_FINITE = "gives values that are not finite"
_DEPENDENT = (
    "makes the logits of an image depend on the other images of its batch (batch statistics in evaluation mode, or a "
    "mean over the batch): such a network cannot be certified"
)


def main(folder: Path) -> None:
    """Answer trainings, each [fields, precision, batch size of certification], with all problems of their plug-ins."""
    isolated.answer(folder, _all_problems)


def _all_problems(trainings: list[tuple[dict[str, Any], Precision, int]]) -> list[str]:
    tried = [(build(TrainSpec, fields, where="train"), how) for fields, *how in trainings]
    steps: list[tuple[TrainSpec, list[Any]]] = [(spec, []) for spec, _ in tried if not spec.is_taken]
    with guarded(1000, "four steps", stderr=sys.stderr):
        # Steps are not tested with a network that cannot be used.
        problems = _problems(tried, network_problem, _network) or _problems(steps, method_problem, _method)
    return list(dict.fromkeys(problems))


def network_problem(spec: TrainSpec, precision: Precision = "float32", batch_size: int = 1) -> str | None:
    """What is wrong with the network of a training as a base classifier; None if nothing is.

    It is also tried in the ``precision`` of certification, and, unless that takes more than seconds, in batches of its
    ``batch_size`` on a GPU.
    """
    torch.manual_seed(0)
    classifier, info = classifier_for(spec).eval().requires_grad_(False), spec.info
    generator = torch.Generator().manual_seed(0)
    noisy_RCHW = torch.rand((num_rows(info), *info.image_shape), generator=generator)
    noisy_RCHW += 0.5 * torch.randn(noisy_RCHW.shape, generator=generator)
    began, logits_RK = time.perf_counter(), classifier(noisy_RCHW)
    is_fast = (time.perf_counter() - began) * batch_size <= _MAX_S * len(noisy_RCHW)
    sizes = [2 * len(noisy_RCHW) + 1]
    sizes += [call_shape(info.image_shape, batch_size, torch.device("cuda"))[0]] if is_fast else []
    if problem := _forward_problem(classifier, noisy_RCHW, info, sizes):
        return problem
    torch.manual_seed(1)
    copied = classifier_for(spec).eval().requires_grad_(False)
    copied.load_state_dict(classifier.state_dict())
    if not _are_close(copied(noisy_RCHW), logits_RK, _TOLERANCE_AGAIN):
        return (
            f"{_place_of_difference(classifier, noisy_RCHW, slice(None), noisy_RCHW, copied)} gives other values in a "
            "copy of the network with the same weights: everything that is drawn when the network is built must be a "
            "parameter or a buffer, which the checkpoint stores"
        )
    as_certified = torch.inference_mode()(lambda: FoldedClassifier(classifier)(noisy_RCHW))
    with ThreadPoolExecutor(1) as pool:
        as_certified_RK = pool.submit(as_certified).result()
    if not _are_close(as_certified_RK, logits_RK):
        return (
            "gives other logits when it is traced, or runs in inference mode on another thread: forward must depend on "
            "its input alone"
        )
    with contextlib.suppress(Exception):  # a course that depends on values cannot be followed without any
        on_cpu, on_gpu = (course_on(device, classifier, noisy_RCHW) for device in ("cpu", "cuda"))
        if branch := first_apart(on_cpu, on_gpu, lambda one, other: one.settings == other.settings):
            return f"{branch} does something else on a GPU than on a CPU"
    return _rounded_problem(classifier, noisy_RCHW, info, precision)


def _forward_problem(
    network: BaseClassifier, noisy_RCHW: Tensor, info: DatasetInfo, sizes: Sequence[int], tolerance: float = _TOLERANCE
) -> str | None:
    """What is wrong with the logits of a network; ``sizes`` are those of larger batches to try."""
    operations, logits_RK = course(network, noisy_RCHW), network(noisy_RCHW)
    expected = (len(noisy_RCHW), info.num_classes)
    if not isinstance(logits_RK, Tensor) or tuple(logits_RK.shape) != expected:
        got = tuple(logits_RK.shape) if isinstance(logits_RK, Tensor) else type(logits_RK).__name__
        return f"{operations[-1].name} gives {got}, expected logits of {expected}"
    if not logits_RK.is_floating_point():
        return f"{operations[-1].name} gives logits of {logits_RK.dtype}, expected real numbers"
    if not logits_RK.isfinite().all():
        bad = [one.name for one in operations if one.output is not None and not one.output.isfinite().all()]
        return f"{bad[0] if bad else ''} {_NOT_FINITE}"
    for other_RCHW, rows, problem in _other_batches(noisy_RCHW, sizes):
        near = _TOLERANCE_AGAIN if other_RCHW is noisy_RCHW else tolerance
        if not _are_close(network(other_RCHW), logits_RK[rows], near):
            return f"{_place_of_difference(network, noisy_RCHW, rows, other_RCHW, network)} {problem}"
    return None


def _place_of_difference(
    network: BaseClassifier, noisy_RCHW: Tensor, rows: Tensor | slice, other_RCHW: Tensor, other: BaseClassifier
) -> str:
    def agree(one: Operation, another: Operation) -> bool:
        ours, theirs = one.output, another.output
        if ours is None or theirs is None or (ours.shape[:1], theirs.shape[:1]) != sizes:
            return True  # weights, say
        return _are_close(theirs, ours[rows])

    sizes = noisy_RCHW.shape[:1], other_RCHW.shape[:1]
    return first_apart(course(network, noisy_RCHW), course(other, other_RCHW), agree) or "something in it"


def _rounded_problem(classifier: Classifier, noisy_RCHW: Tensor, info: DatasetInfo, precision: Precision) -> str | None:
    """What is wrong with a network in a lower precision, as far as this CPU can compute in it."""
    dtype = DTYPES[precision]
    if dtype == torch.float32:
        return None
    network = copy.deepcopy(classifier.network).to(dtype)

    def rounded(inputs_RCHW: Tensor) -> Tensor:
        logits_RK: Tensor = network(classifier.normalize(inputs_RCHW).to(dtype))
        return logits_RK.to(inputs_RCHW.dtype)

    few_RCHW = noisy_RCHW[:16]  # in 16 bits, a CPU may be slow
    try:
        problem = _forward_problem(rounded, few_RCHW, info, [2 * len(few_RCHW) + 1], _TOLERANCE_ROUNDED)
    except RuntimeError as error:
        is_of_cpu = "not implemented for" in str(error)
        return None if is_of_cpu else f"in {precision}, {loading.described(error)}"
    # Weights that are not trained yet may overflow where trained ones do not.
    return None if problem is None or problem.endswith(_NOT_FINITE) else f"in {precision}, {problem}"


def num_rows(info: DatasetInfo) -> int:
    """The number of noisy images for testing a network: fewer if they are large."""
    return _NUM_ROWS if torch.Size(info.image_shape).numel() <= _LARGE else _NUM_ROWS_LARGE


def _other_batches(noisy_RCHW: Tensor, sizes: Sequence[int]) -> Iterator[tuple[Tensor, Tensor | slice, str]]:
    """The same rows again, in other batches; which rows they are, and what it means if their logits differ."""
    num_cut = len(noisy_RCHW) // 4
    order_R = torch.randperm(len(noisy_RCHW), generator=torch.Generator().manual_seed(2))
    yield (
        noisy_RCHW,
        slice(None),
        "is random in evaluation mode: two calls differ; pass training=self.training to dropout",
    )
    yield noisy_RCHW[order_R], order_R, _DEPENDENT
    yield noisy_RCHW[:num_cut], slice(num_cut), _DEPENDENT
    yield torch.cat([noisy_RCHW[:num_cut], torch.zeros_like(noisy_RCHW[num_cut:])]), slice(num_cut), _DEPENDENT
    for size in (cpu_rows(noisy_RCHW.shape[1:]), *sizes):  # as many as a certification on a CPU takes at a time
        rows_R = torch.arange(size) % len(noisy_RCHW)
        yield noisy_RCHW[rows_R], rows_R, _DEPENDENT


def _are_close(others: Tensor, ones: Tensor, tolerance: float = _TOLERANCE) -> bool:
    """Whether the first of ``others`` are ``ones``."""
    difference = (others[: len(ones)].double() - ones.double()).abs()
    return bool((difference <= tolerance * (1e-6 + ones.double().abs().max())).all())


def method_problem(spec: TrainSpec) -> str | None:
    """What is wrong with two steps of a training; None if nothing is."""
    first, second = _two_steps(spec), _two_steps(spec)
    if any(not torch.isfinite(value).all() for value in first):
        return "loss or weights are not finite after two steps on synthetic images"
    if any(not torch.equal(one, other) for one, other in zip(first, second, strict=True)):
        return (
            "the same two steps gave other weights the second time: draw all randomness from the given generator, and "
            "keep no state between steps"
        )
    return None


def _two_steps(spec: TrainSpec) -> list[Tensor]:
    """The losses of two steps, in the first and the last epoch, and the weights after them."""
    stepper, images, generator = made_up(spec, num_images=4)
    found: list[Tensor] = []
    for number in (0, spec.epochs - 1):
        epoch = Epoch(number=number, epsilon=spec.epsilon, shared=generator, own=generator)
        found += [sums[0] for sums in stepper.steps(images, epoch)]
    return [*found, *(value.clone() for value in stepper.classifier.state_dict().values())]


def made_up(spec: TrainSpec, num_images: int) -> tuple[Stepper, ImageBatch, torch.Generator]:
    """The stepper of a training on the CPU, synthetic images, and the random generator."""
    torch.manual_seed(0)
    spec, info = replace(spec, batch_size=num_images, num_processes=1, multi_noise="paper"), spec.info
    classifier, generator = classifier_for(spec), torch.Generator().manual_seed(1)
    images = ImageBatch(
        num_images=num_images,
        inputs_BCHW=torch.rand((num_images, *info.image_shape), generator=generator),
        labels_B=torch.arange(num_images) % info.num_classes,
        indices_B=torch.arange(num_images),
    )
    optimizer = torch.optim.SGD(classifier.parameters(), lr=spec.learning_rate)
    stepper = Stepper(spec=spec, classifier=classifier, replica=classifier, optimizer=optimizer, group=Group())
    return stepper, images, generator


def _problems(
    trainings: Iterable[tuple[TrainSpec, list[Any]]],
    check: Callable[..., str | None],
    what: Callable[[TrainSpec], object],
) -> list[str]:
    """The problems that a check finds, in one of each group of trainings that are equal for it, tried as given."""
    distinct = {json.dumps([what(spec), how], sort_keys=True): (spec, how) for spec, how in trainings}
    problems = []
    for spec, how in distinct.values():
        with settings.kept() as changed:
            try:
                problem = check(spec, *how)
            except ConfigError as error:
                problem = str(error)
            except (Exception, SystemExit) as error:  # a plug-in may raise anything
                problem = loading.described(error)
        if changed:
            problem = "; ".join(filter(None, [f"sets {', '.join(changed)} {PROCESS_WIDE}", problem]))
        names = ", ".join(plugin.name for plugin in spec.plugins)
        if problem:
            problems.append(problem if problem.startswith(names) else f"{names}: {problem}")
    return problems


def _network(spec: TrainSpec) -> object:
    return [train_fields(spec).get(name) for name in ("dataset", "architecture", "model", "data", "denoiser")]


def _method(spec: TrainSpec) -> object:
    """Everything that steps depend on, except numbers that do not change which operations run."""
    left_out = ("sigma", "epsilon", "seed", "learning_rate", "weight_decay", "batch_size", "epochs")
    return {name: value for name, value in train_fields(spec).items() if name not in left_out}
