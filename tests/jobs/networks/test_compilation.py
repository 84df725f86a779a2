"""The compiled attack network: the same losses, compiled once, whatever the optimizer does to the weights."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from jobs import train
from jobs.datasets import dataset_info
from jobs.files.store import Store
from jobs.networks import checkpoint
from jobs.networks.classifier import build_classifier
from jobs.networks.compilation import compiled
from jobs.networks.folding import FoldedClassifier
from jobs.specs.train import TrainSpec
from jobs.specs.units import Resources, TrainUnit
from jobs.training.steps import Stepper
from tests.jobs.training.test_steps import _batch, _epoch, _images, _spec, _stepper
from tests.jobs.units import PGD_RUN, on_model

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs a C++ compiler (g++)"),
    # torch.compile looks at the gradient of its input, and hides this warning of torch's unless all are errors.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch.compiler.set_stance("default")
    torch._dynamo.reset()


def losses(stepper: Stepper, *, num_steps: int = 6) -> list[float]:
    """Of steps on one batch; none but the first may compile anything."""
    epoch, images, found = _epoch(stepper.spec), _images(*_batch()), list[float]()
    for _ in range(num_steps):
        (sums,) = stepper.steps(images, epoch)
        found.append(float(sums[0] / sums[2]))
        torch.compiler.set_stance("fail_on_recompile")
    torch.compiler.set_stance("default")
    return found


def with_compiled_attack(spec: TrainSpec) -> Stepper:
    plain = _stepper(spec)
    return Stepper(
        spec=spec,
        classifier=plain.classifier,
        replica=plain.classifier,
        optimizer=plain.optimizer,
        group=plain.group,
        compile=True,
    )


@pytest.mark.parametrize(("attack", "num_graphs"), [("pgd", 1), ("ddn", 2)])  # DDN also asks without gradients
def test_steps_have_the_losses_of_eager_ones(attack: str, num_graphs: int) -> None:
    spec = _spec(method="smoothadv", attack=attack, m_train=2)
    eager, fast = losses(_stepper(spec)), losses(with_compiled_attack(spec))
    assert counters["stats"]["unique_graphs"] == num_graphs
    assert not counters["graph_break"]
    assert len(set(eager)) == 6
    # The same mathematics, fused.
    assert fast == pytest.approx(eager, rel=1e-4)


def test_bfloat16_is_compiled_as_well() -> None:
    spec = _spec(method="smoothadv", attack="pgd", m_train=2, precision="bfloat16")
    # Fused operations leave out roundings to bfloat16.
    assert losses(with_compiled_attack(spec)) == pytest.approx(losses(_stepper(spec)), rel=0.02)


def test_refreshed_weights_take_effect_without_another_compilation() -> None:
    torch.manual_seed(0)
    classifier = build_classifier("cifar_resnet20", dataset_info("cifar10")).eval()
    folded = FoldedClassifier(classifier)
    fast, inputs_BCHW = compiled(folded, True), torch.rand(2, 3, 32, 32)
    before_BK = fast(inputs_BCHW)
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    folded.refresh()
    torch.compiler.set_stance("fail_on_recompile")
    after_BK = fast(inputs_BCHW)
    assert not torch.allclose(after_BK, before_BK, rtol=0.01)
    torch.testing.assert_close(after_BK, folded(inputs_BCHW), rtol=1e-4, atol=1e-4 * float(after_BK.abs().max()))


def test_not_compiled_is_the_module_itself() -> None:
    module = torch.nn.Linear(1, 1)
    assert compiled(module, False) is module


def test_a_training_is_compiled_where_its_resources_say_so(tmp_path: Path) -> None:
    spec = replace(PGD_RUN.train, epochs=3, batch_size=1297)  # all images: one shape to compile for
    run = on_model(PGD_RUN, spec)
    weights = []
    for compile in (False, True):
        store = Store(tmp_path / str(compile))
        train.run(TrainUnit(train=run.train), store, Resources(device="cpu", compile_training=compile))
        weights.append(checkpoint.load(store.checkpoint_path(run.train.key))["state_dict"])
    assert counters["stats"]["unique_graphs"] == 1
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4)
