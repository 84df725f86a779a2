"""Published checkpoints, made here in the form of the real ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from configs.composition import compose_config
from configs.entry import run_command
from jobs.datasets import dataset_info
from jobs.errors import CheckpointError, ConfigError
from jobs.files.store import Store
from jobs.networks import checkpoint, pretrained
from jobs.networks.classifier import Classifier, build_classifier
from jobs.specs.train import TrainSpec
from jobs.validation import build
from pipeline.launch import launch
from pipeline.request.config import parse_launch
from tests.trees import make_tree

ARCHITECTURE = "cifar_resnet20"


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    built = build_classifier(ARCHITECTURE, dataset_info("cifar10"))
    for name, buffer in built.network.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    return built.eval()


def _publish(path: Path, classifier: Classifier, rename: Callable[[str], str], **change: Any) -> Path:
    """Write a file as the authors' training does: arch, state_dict, epoch, optimizer."""
    optimizer = torch.optim.SGD(classifier.network.parameters(), lr=0.1, momentum=0.9)
    state_dict = {rename(name): value for name, value in classifier.network.state_dict().items()}
    content = {"epoch": 150, "arch": ARCHITECTURE, "state_dict": state_dict, "optimizer": optimizer.state_dict()}
    torch.save({**content, **change}, path)
    return path


def _plain(name: str) -> str:
    return f"1.{name}"


def _spec(path: Path, **change: Any) -> TrainSpec:
    values = {
        "dataset": "cifar10",
        "architecture": ARCHITECTURE,
        "method": "gaussian",
        "sigma": 0.25,
        "epochs": 150,
        "batch_size": 256,
        "learning_rate": 0.1,
        "lr_step_epochs": 50,
        "lr_gamma": 0.1,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "seed": 0,
        "checkpoint_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    return build(TrainSpec, {**values, **change}, where="train")


def _taken_over(path: Path, tmp_path: Path, **change: Any) -> Classifier:
    store, spec = Store(tmp_path / "results"), _spec(path, **change)
    assert spec.checkpoint_sha256 is not None
    target = store.source_path(spec.checkpoint_sha256)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(path.read_bytes())
    pretrained.take_over(spec, store)
    return checkpoint.load_classifier(store.checkpoint_path(spec.key), spec, torch.device("cpu")).classifier


@pytest.mark.parametrize(
    "rename",
    [_plain, lambda name: f"1.module.{name}", lambda name: f"module.1.{name}"],
    ids=["plain", "DataParallel inside", "DataParallel around"],
)
def test_published_weights_compute_the_same(
    classifier: Classifier, rename: Callable[[str], str], tmp_path: Path
) -> None:
    path = _publish(tmp_path / "checkpoint.pth.tar", classifier, rename)
    inputs = torch.rand(4, 3, 32, 32)
    assert torch.equal(_taken_over(path, tmp_path)(inputs), classifier(inputs))


def test_an_input_layer_that_only_centres_is_stored(classifier: Classifier, tmp_path: Path) -> None:
    path = _publish(tmp_path / "checkpoint.pth.tar", classifier, _plain)
    inputs, info = torch.rand(4, 3, 32, 32), dataset_info("cifar10")
    expected = classifier.network(inputs - torch.tensor(info.mean).view(-1, 1, 1))
    found = _taken_over(path, tmp_path, input_layer="center")
    torch.testing.assert_close(found(inputs), expected)
    spec = _spec(path, input_layer="center")
    stored = checkpoint.load(Store(tmp_path / "results").checkpoint_path(spec.key))
    assert stored["std"] == [1.0, 1.0, 1.0]


def _without(path: Path, key: str) -> None:
    content = torch.load(path, weights_only=True)
    del content[key]
    torch.save(content, path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "cannot be read, truncated or damaged"),
        (lambda path: path.write_text("no checkpoint"), "cannot be read"),
        (lambda path: _without(path, "state_dict"), "not a published checkpoint"),
        (lambda path: _without(path, "arch"), "holds a None, the configuration says 'cifar_resnet20'"),
    ],
)
def test_what_is_no_published_checkpoint_is_named(
    classifier: Classifier, tmp_path: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    path = _publish(tmp_path / "checkpoint.pth.tar", classifier, _plain)
    spoil(path)
    with pytest.raises(CheckpointError, match=message):
        _taken_over(path, tmp_path)


def test_another_architecture_is_named(classifier: Classifier, tmp_path: Path) -> None:
    path = _publish(tmp_path / "checkpoint.pth.tar", classifier, _plain, arch="cifar_resnet110")
    with pytest.raises(CheckpointError, match=r"write train\.architecture=cifar_resnet110"):
        _taken_over(path, tmp_path)
    path = _publish(tmp_path / "checkpoint.pth.tar", classifier, _plain, arch="cifar_resnet56")
    with pytest.raises(CheckpointError, match="its weights are not those of a cifar_resnet56 for cifar10"):
        _taken_over(path, tmp_path, architecture="cifar_resnet56")


def test_an_input_layer_with_weights_is_refused(classifier: Classifier, tmp_path: Path) -> None:
    path = _publish(tmp_path / "checkpoint.pth.tar", classifier, lambda name: name)
    with pytest.raises(CheckpointError, match=r"unexpected weight 'conv1\.weight'"):
        _taken_over(path, tmp_path)


class _Evil(nn.Module):
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("evil"),))


def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "checkpoint.pth.tar"
    torch.save({"arch": ARCHITECTURE, "state_dict": {"1.fc.weight": _Evil()}}, path)
    with pytest.raises(CheckpointError):
        _taken_over(path, tmp_path)
    assert not (tmp_path / "evil").exists()


def test_what_is_wrong_with_a_file_is_said_before_anything_is_written(
    classifier: Classifier, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = make_tree(tmp_path / "tree", per_class={"train": 1, "test": 1})
    path = _publish(tmp_path / "a, b=c.pth.tar", classifier, _plain)
    (tmp_path / "text.pth.tar").write_text("hello")
    blocks = f"[{{checkpoint: ['{path}', '{tmp_path}/text.pth.tar'], sigma: 0.25}}]"
    command = [
        *("grid=pretrained", f"grid.blocks={blocks}", "model=cifar_resnet56", "train.dataset=cifar10_images"),
        *(f"data.cifar10_images={tree}", f"results={tmp_path / 'results'}", "cluster=debug"),
    ]
    assert run_command("launch", launch, command) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error: train.checkpoint: {path}: holds a '{ARCHITECTURE}', the configuration says")
    assert second.startswith(f"error: train.checkpoint: {tmp_path}/text.pth.tar: cannot be read")
    assert not (tmp_path / "results").exists()


def test_a_file_goes_from_the_command_line_into_certification(
    classifier: Classifier, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = make_tree(tmp_path / "tree", per_class={"train": 1, "test": 1})
    path = _publish(tmp_path / "checkpoint.pth.tar", classifier, _plain)
    command = [
        "grid=pretrained",
        f"train.checkpoint={path}",
        f"model={ARCHITECTURE}",
        "train.dataset=cifar10_images",
        f"data.cifar10_images={tree}",
        "train.sigma=0.5",
        "certify.n=100",
        "certify.indices={start: 0, stop: 3, step: 1}",
        f"results={tmp_path / 'results'}",
        "cluster=debug",
    ]
    assert launch(compose_config("launch", command)) == 0
    (run,) = parse_launch(compose_config("launch", command)).manifest.runs
    assert run.train.sigma == run.certify.sigma_cert == 0.5
    path.unlink()  # the results hold their own copy from now on
    stored: dict[str, Tensor] = checkpoint.load(Store(tmp_path / "results").checkpoint_path(run.train.key))[
        "state_dict"
    ]
    assert torch.equal(stored["network.fc.weight"], classifier.network.state_dict()["fc.weight"])
    with pytest.raises(ConfigError, match=r"train\.checkpoint: cannot read"):
        parse_launch(compose_config("launch", command))
