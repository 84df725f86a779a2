"""Nothing inside a training step or a batch of certification makes the host wait for the device."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from jobs.datasets import dataset_info
from jobs.networks.classifier import build_classifier
from jobs.networks.folding import FoldedClassifier
from jobs.training.distributed import Group
from jobs.training.feeding import ImageBatch
from jobs.training.steps import Epoch, Stepper
from smoothing.counts import VoteCounter, draws_between
from smoothing.distributions import ExactGridNoise, GaussianNoise, NoiseDistribution
from smoothing.noise import NoiseStream
from tests.jobs.training.test_steps import METHODS, _spec
from tests.waiting import META, BlockingCopyError, NoBlockingCopies

SHAPE = (1, 8, 8)


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # there is none for META


def _no_blocking_copies() -> NoBlockingCopies:
    return NoBlockingCopies()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("change", METHODS, ids=lambda change: "-".join(map(str, change.values())))
def test_a_training_step_never_waits(change: dict[str, Any], precision: str) -> None:
    spec = _spec(**change, precision=precision)
    classifier = build_classifier(spec.architecture, dataset_info(spec.dataset)).to(META)
    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    stepper = Stepper(spec=spec, classifier=classifier, replica=classifier, optimizer=optimizer, group=Group())
    epoch = Epoch(number=0, epsilon=spec.epsilon, shared=torch.Generator(), own=torch.Generator())
    inputs, labels = torch.zeros(12, *SHAPE, device=META), torch.zeros(12, dtype=torch.int64, device=META)
    images = ImageBatch(num_images=12, inputs_BCHW=inputs, labels_B=labels, indices_B=labels)
    with _no_blocking_copies():
        for _ in range(2):
            (sums,) = stepper.steps(images, epoch)
    assert sums.device == META


@pytest.mark.parametrize(
    "distribution", [GaussianNoise(0.25), ExactGridNoise(0.25, 16)], ids=["gaussian", "exact_grid"]
)
def test_a_batch_of_certification_never_waits(distribution: NoiseDistribution) -> None:
    info = dataset_info("digits")
    classifier = FoldedClassifier(build_classifier("digits_cnn", info).eval().to(META), torch.bfloat16)
    shape, num_classes = info.image_shape, info.num_classes
    counter = VoteCounter(
        classifier, distribution, num_classes=num_classes, image_shape=shape, batch_size=300, device=META
    )
    draws = list(draws_between(0, NoiseStream(seed=0, index=0, stage="estimation"), 0, 550))
    with _no_blocking_copies():
        counter.assign(0, torch.full(shape, 0.5))
        assert list(counter.count([draws[:3], draws[3:]])) == [draws[:3], draws[3:]]
        counter.clear(1)
    with pytest.raises(NotImplementedError, match="Cannot copy out"):
        counter.votes([0])


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda values: values.sum().item(), id="item"),
        pytest.param(lambda values: bool(values.sum() > 0), id="bool"),
        pytest.param(lambda values: values[values > 0], id="mask"),
        pytest.param(lambda values: values.cpu(), id="to the host"),
        pytest.param(lambda values: values + torch.ones(3).to(META), id="from the host"),
        pytest.param(lambda values: values.copy_(torch.ones(3)), id="copied from the host"),
        pytest.param(lambda values: values.copy_(torch.tensor(1.0)), id="a number copied from the host"),
    ],
)
def test_what_waits_is_found(ask: Callable[[Tensor], Any]) -> None:
    values = torch.zeros(3, device=META)
    with _no_blocking_copies(), pytest.raises((BlockingCopyError, RuntimeError, NotImplementedError)):
        ask(values)
