"""Training in bfloat16: the network alone is in it, and nothing that is guaranteed gets looser."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jobs import train
from jobs.errors import ConfigError
from jobs.files.manifest import read_manifest, write_manifest
from jobs.files.store import Store
from jobs.networks import checkpoint
from jobs.specs.runs import Run
from jobs.specs.train import TrainSpec, train_fields
from jobs.training.steps import Stepper
from tests.jobs.test_train import KEY, RUN, Killed, _assert_same_bits, _die_after, _weights
from tests.jobs.training.test_steps import METHODS, Watch, _batch, _epoch, _images, _spec, _stepper
from tests.jobs.units import on_model, retrained, train_here

MIXED_RUN = retrained(RUN, precision="bfloat16")
MIXED_KEY = MIXED_RUN.train.key


def losses(stepper: Stepper, num_steps: int = 10) -> Iterator[float]:
    epoch, images = _epoch(stepper.spec), _images(*_batch())
    for _ in range(num_steps):
        (sums,) = stepper.steps(images, epoch)
        yield float(sums[0] / sums[2])


def convolution_types(module: nn.Module) -> set[torch.dtype]:
    """A set that every convolution of a module adds the type of its output to."""
    seen: set[torch.dtype] = set()
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(lambda _, __, output: seen.add(output.dtype))
    return seen


@pytest.mark.parametrize("change", METHODS, ids=lambda change: "-".join(map(str, change.values())))
def test_the_network_alone_is_in_bfloat16(change: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    spec, watch = _spec(**change, precision="bfloat16"), Watch(monkeypatch)
    stepper = _stepper(spec)
    trained, attacked = convolution_types(stepper.classifier), convolution_types(stepper.networks.attacked)
    inputs, labels = _batch()
    (sums,) = stepper.steps(_images(inputs, labels), _epoch(spec))
    assert trained == {torch.bfloat16}
    assert attacked == (set() if spec.method == "gaussian" else {torch.bfloat16})
    assert sums.dtype == watch.rows[0].dtype == torch.float32
    state: dict[str, Tensor] = stepper.classifier.state_dict()
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float32}
    assert {parameter.grad.dtype for parameter in stepper.classifier.parameters() if parameter.grad is not None} == {
        torch.float32
    }
    for found, _ in watch.attacks:
        assert found.dtype == torch.float32
        assert found.min() >= 0
        assert found.max() <= 1
        # The promise is exact, in exact arithmetic.
        assert (found.double() - inputs.double()).flatten(1).norm(dim=1).max() <= spec.epsilon
        assert not torch.equal(found, inputs)
    assert len(watch.attacks) == (spec.method != "gaussian")


@pytest.mark.parametrize("attack", ["pgd", "ddn"])
def test_losses_are_near_those_of_float32(attack: str) -> None:
    spec = _spec(method="smoothadv", attack=attack, m_train=2)
    plain, mixed = (list(losses(_stepper(replace(spec, precision=kind)))) for kind in ("float32", "bfloat16"))
    assert mixed != plain
    # bfloat16 rounds to three digits.
    assert mixed == pytest.approx(plain, rel=0.02)
    assert mixed[-1] < mixed[0]


def test_an_interrupted_training_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed, store = Store(tmp_path / "undisturbed"), Store(tmp_path / "killed")
    train_here(undisturbed, MIXED_RUN)
    with monkeypatch.context() as patch:
        patch.setattr(train, "_train_epoch", _die_after(2, train._train_epoch))
        with pytest.raises(Killed):
            train_here(store, MIXED_RUN)
    assert store.saved_epochs(MIXED_KEY) == [1, 2]
    train_here(store, MIXED_RUN)
    _assert_same_bits(_weights(store, MIXED_KEY), _weights(undisturbed, MIXED_KEY))


def test_it_is_another_model_with_files_of_its_own(tmp_path: Path) -> None:
    assert MIXED_KEY != KEY
    assert MIXED_KEY.rpartition("-")[0] == KEY.rpartition("-")[0]
    assert train_fields(MIXED_RUN.train)["precision"] == "bfloat16"
    store = Store(tmp_path)
    spec = replace(MIXED_RUN.train, epochs=1)
    train_here(store, on_model(RUN, spec))
    path = store.checkpoint_path(spec.key)
    assert checkpoint.load_classifier(path, spec, torch.device("cpu")).classifier is not None
    with pytest.raises(checkpoint.CheckpointError, match="precision is 'bfloat16', expected None"):
        checkpoint.load_classifier(path, replace(spec, precision="float32"), torch.device("cpu"))


def test_what_was_written_before_there_was_a_choice_is_float32(tmp_path: Path) -> None:
    """Neither files nor keys of float32 say a precision, so those from before mean the same."""
    assert "precision" not in train_fields(RUN.train)
    assert TrainSpec(**train_fields(RUN.train)) == RUN.train
    manifest = read_manifest_of(tmp_path, RUN)
    assert manifest == (RUN.train, KEY)
    assert read_manifest_of(tmp_path, MIXED_RUN) == (MIXED_RUN.train, MIXED_KEY)


def read_manifest_of(folder: Path, run: Run) -> tuple[TrainSpec, str]:
    """A run's training and its key, after a round trip through grid.json."""
    from jobs.specs.runs import Manifest

    path = folder / "grid.json"
    write_manifest(path, Manifest(grid="tiny", runs=(run,)))
    train_spec = read_manifest(path).runs[0].train
    return train_spec, train_spec.key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "float16"}, "precision: 'float16' is not valid; valid: 'float32' or 'bfloat16'"),
        ({"precision": "bfloat16", "checkpoint_sha256": "0" * 64}, "precision=bfloat16 has no effect with train.check"),
    ],
)
def test_a_precision_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _spec(method="smoothadv", attack="pgd", **change)
    assert message in str(caught.value)
