"""Compiled networks: the same losses, compiled once, whatever the optimizer does to the weights."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from jobs import train
from jobs.datasets import dataset_info
from jobs.files.store import Store
from jobs.networks import checkpoint, inference
from jobs.networks.classifier import build_classifier
from jobs.networks.folding import FoldedClassifier
from jobs.networks.inference import compiled, for_inference
from jobs.specs.train import TrainSpec
from jobs.specs.units import Resources, TrainUnit
from jobs.training.steps import Stepper
from smoothing.counts import class_counts
from smoothing.noise import NoiseStream
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


def with_compiled_networks(spec: TrainSpec) -> Stepper:
    plain = _stepper(spec)
    return Stepper(
        spec=spec,
        classifier=plain.classifier,
        replica=plain.classifier,
        optimizer=plain.optimizer,
        group=plain.group,
        compile=True,
    )


# Of what learns, and of its copy that is attacked; DDN also asks that without gradients.
@pytest.mark.parametrize(("attack", "num_graphs"), [("pgd", 2), ("ddn", 3)])
def test_steps_have_the_losses_of_eager_ones(attack: str, num_graphs: int) -> None:
    spec = _spec(method="smoothadv", attack=attack, m_train=2)
    eager, fast = losses(_stepper(spec)), losses(with_compiled_networks(spec))
    assert counters["stats"]["unique_graphs"] == num_graphs
    assert not counters["graph_break"]
    assert len(set(eager)) == 6
    # The same mathematics, fused.
    assert fast == pytest.approx(eager, rel=1e-4)


def test_bfloat16_is_compiled_as_well() -> None:
    spec = _spec(method="smoothadv", attack="pgd", m_train=2, precision="bfloat16")
    # Fused operations leave out roundings to bfloat16.
    assert losses(with_compiled_networks(spec)) == pytest.approx(losses(_stepper(spec)), rel=0.02)


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


def test_constant_weights_are_frozen_with_the_same_logits() -> None:
    torch.manual_seed(0)
    classifier = build_classifier("digits_cnn", dataset_info("digits")).eval()
    inputs_BCHW = torch.rand(20, 1, 8, 8)
    with torch.inference_mode():
        expected_BK = for_inference(classifier, "float32", torch.device("cpu"))(inputs_BCHW)
        fast = for_inference(classifier, "float32", torch.device("cpu"), compile=True)
        fast(inputs_BCHW)
        torch.compiler.set_stance("fail_on_recompile")
        found_BK = fast(inputs_BCHW)
    torch.testing.assert_close(found_BK, expected_BK, rtol=1e-4, atol=1e-5)
    assert not torch._inductor.config.freezing, "which would freeze weights that change, too"
    assert counters["inductor"]["mkldnn_conv_weight_pack_matcher_count"] > 0, "weights were not laid out beforehand"


def test_threads_share_one_compilation_and_change_no_vote() -> None:
    torch.manual_seed(0)
    classifier = build_classifier("digits_cnn", dataset_info("digits")).eval()
    network = for_inference(classifier, "bfloat16", torch.device("cpu"), compile=True)
    image_CHW, num_threads, found = torch.rand(1, 8, 8), torch.get_num_threads(), list[list[int]]()
    stream = NoiseStream(seed=0, index=0, stage="estimation")
    try:
        for threads in (2, 1, 3):
            torch.set_num_threads(threads)
            votes = class_counts(
                network, image_CHW, sigma=1.0, num_samples=2000, num_classes=10, stream=stream, batch_size=1000
            )
            found.append(votes.tolist())
    finally:
        torch.set_num_threads(num_threads)
    assert found[0] == found[1] == found[2]
    assert counters["stats"]["unique_graphs"] == 1


class Slow(torch.nn.Linear):
    """Takes a known time in a call."""

    def __init__(self, seconds: float) -> None:
        super().__init__(1, 1)
        self.seconds = seconds

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        return super().forward(inputs)


@pytest.mark.parametrize(
    ("compiled_s", "num_rows", "expected", "said"),
    [
        (0.001, 10**7, True, "compile=auto: yes; "),
        (0.1, 10**7, False, "compile=auto: no; "),
        (0.001, 10, False, "compile=auto: no, because the work takes only about"),
        (None, 10**7, False, "compile=auto: no, because torch.compile failed (RuntimeError: no compiler)"),
    ],
)
def test_auto_compiles_where_that_pays_and_says_so(
    compiled_s: float | None,
    num_rows: int,
    expected: bool,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fake(module: torch.nn.Module, *_: object, **__: object) -> torch.nn.Module:
        if compiled_s is None:
            raise RuntimeError("no compiler")
        return Slow(compiled_s)

    monkeypatch.setattr(inference, "compiled", fake)
    caplog.set_level("INFO")
    eager, num_threads = Slow(0.05), torch.get_num_threads()
    chosen, is_compiled = inference.compiled_where_it_pays(eager, torch.zeros(1, 1), num_rows)
    assert is_compiled is expected
    assert (chosen is eager) is not expected
    assert said in caplog.text
    assert torch.get_num_threads() == num_threads


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
    assert counters["stats"]["unique_graphs"] == 2  # what learns, and its copy that is attacked
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4)
