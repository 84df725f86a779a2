"""Published checkpoints, made here in the form of the real ones."""

import argparse
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
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


def _imported(path: Path, tmp_path: Path, **change: Any) -> Classifier:
    store, spec = Store(tmp_path / "results"), _spec(path, **change)
    assert spec.checkpoint_sha256 is not None
    target = store.source_path(spec.checkpoint_sha256)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(path.read_bytes())
    pretrained.import_checkpoint(spec, store)
    return checkpoint.load_classifier(store.checkpoint_path(spec.key), spec, torch.device("cpu")).classifier


def _prefixed(prefix: str) -> Callable[[str], str]:
    return lambda name: f"{prefix}{name}"


def _inside(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda state_dict: {name: state_dict, "epoch": 440}


PREFIXES = ["1.", "1.module.", "module.1.", "module.1.module.", "_orig_mod.1.", "", "model.", "model.net.", "0."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_weights_are_found_under_any_prefix(classifier: Classifier, prefix: str, tmp_path: Path) -> None:
    path = _publish(tmp_path / "checkpoint.pth.tar", classifier, _prefixed(prefix))
    inputs = torch.rand(4, 3, 32, 32)
    assert torch.equal(_imported(path, tmp_path)(inputs), classifier(inputs))


LAYOUTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a state_dict alone": lambda weights: weights,
    "net": _inside("net"),
    "model": _inside("model"),
    "model_state_dict": _inside("model_state_dict"),
    "lightning": lambda weights: {"state_dict": weights, "pytorch-lightning_version": "2.4.0", "callbacks": {}},
    "parameters": lambda weights: {
        "state_dict": {n: nn.Parameter(v, False) if v.is_floating_point() else v for n, v in weights.items()}
    },
    "numbers of numpy": lambda weights: {"state_dict": weights, "best_acc": np.float64(83.2), "loss": np.zeros(3)},
    "settings of argparse": lambda weights: {"state_dict": weights, "args": argparse.Namespace(lr=0.1, noise_sd=0.25)},
    "before torch 0.4.1": lambda weights: {n: v for n, v in weights.items() if "num_batches" not in n},
}


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_are_found_in_any_layout(classifier: Classifier, layout: str, old_format: bool, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    weights = {f"1.{name}": value for name, value in classifier.network.state_dict().items()}
    torch.save(LAYOUTS[layout](weights), path, _use_new_zipfile_serialization=not old_format)
    inputs = torch.rand(2, 3, 32, 32)
    found, notes = pretrained.load_published(path, _spec(path))
    assert torch.equal(found.eval()(inputs), classifier(inputs))
    assert notes == []


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"state_dict_ema": {"1.fc.bias": torch.zeros(10)}}, "state_dict_ema in it is not used; state_dict is"),
        ({"arch": "resnet20"}, "calls its architecture 'resnet20'; its weights are those of a cifar_resnet20"),
    ],
)
def test_what_was_decided_is_said(classifier: Classifier, tmp_path: Path, change: dict[str, Any], note: str) -> None:
    path = _publish(tmp_path / "checkpoint.pth.tar", classifier, _plain, **change)
    assert pretrained.load_published(path, _spec(path))[1] == [f"{path}: {note}"]


def test_a_file_without_input_layer_is_noted_and_takes_the_one_configured(
    classifier: Classifier, tmp_path: Path
) -> None:
    path = _publish(tmp_path / "checkpoint.pth.tar", classifier, lambda name: name)
    found, notes = pretrained.load_published(path, _spec(path, input_layer="none"))
    inputs = torch.rand(2, 3, 32, 32)
    assert torch.equal(found.eval()(inputs), classifier.network(inputs))
    assert notes == [
        f"{path}: does not show the input layer before the network; assuming train.input_layer=none "
        "(normalize, center or none)"
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_precisions_are_taken_as_float32_and_noted(
    classifier: Classifier, tmp_path: Path, dtype: torch.dtype
) -> None:
    weights = classifier.network.state_dict()
    cast = {f"1.{name}": value.to(dtype) if value.is_floating_point() else value for name, value in weights.items()}
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(cast, path)
    found, notes = pretrained.load_published(path, _spec(path))
    assert all(
        torch.equal(value, weights[name].to(dtype).to(weights[name].dtype))
        for name, value in found.network.state_dict().items()
    )
    assert notes[0].endswith(f"its weights are {dtype}; they are converted to float32")


def _with_statistics(path: Path, classifier: Classifier, mean: tuple[float, ...], std: tuple[float, ...]) -> Path:
    buffers = {"mu": torch.tensor(mean).view(1, 3, 1, 1), "sigma": torch.tensor(std).view(1, 3, 1, 1)}
    torch.save({**buffers, **classifier.network.state_dict()}, path)
    return path


def test_a_normalisation_in_the_file_must_be_the_one_configured(classifier: Classifier, tmp_path: Path) -> None:
    info = dataset_info("cifar10")
    path = _with_statistics(tmp_path / "same.pt", classifier, info.mean, info.std)
    assert pretrained.load_published(path, _spec(path))[1] == []
    with pytest.raises(CheckpointError, match=r"normalises with means .* train\.input_layer=center stands for"):
        pretrained.load_published(path, _spec(path, input_layer="center"))
    path = _with_statistics(tmp_path / "other.pt", classifier, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    with pytest.raises(CheckpointError, match=r"normalises with means and deviations \[0\.5, 0\.5, 0\.5\]"):
        pretrained.load_published(path, _spec(path))


@pytest.mark.parametrize("where", ["top", "args"])
def test_a_sigma_that_the_file_states_must_be_the_one_configured(
    classifier: Classifier, tmp_path: Path, where: str
) -> None:
    stated = {"noise_sd": 0.5} if where == "top" else {"args": argparse.Namespace(noise_sd=0.5)}
    path = _publish(tmp_path / "checkpoint.pth.tar", classifier, _plain, **stated)
    with pytest.raises(CheckpointError, match=r"trained with sigma 0\.5, but the configuration says 0\.25"):
        _imported(path, tmp_path)
    _imported(path, tmp_path, sigma=0.5)


@pytest.mark.parametrize("name", ["fc.bias", "bn1.running_var"])
def test_values_that_are_not_finite_are_named(classifier: Classifier, tmp_path: Path, name: str) -> None:
    path = _publish(tmp_path / "checkpoint.pth.tar", classifier, _plain)
    content = torch.load(path, weights_only=True)
    content["state_dict"][f"1.{name}"][3] = float("nan")
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=rf"1 of \d+ values of {name} are not finite"):
        _imported(path, tmp_path)


def test_weights_whose_logits_are_not_finite_are_no_classifier(classifier: Classifier, tmp_path: Path) -> None:
    path = _publish(tmp_path / "checkpoint.pth.tar", classifier, _plain)
    content = torch.load(path, weights_only=True)
    content["state_dict"]["1.bn1.running_var"].fill_(-1.0)
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="logits on a grey image are not finite"):
        _imported(path, tmp_path)


def test_a_network_that_is_in_there_twice_is_not_chosen_among(classifier: Classifier, tmp_path: Path) -> None:
    weights = classifier.network.state_dict()
    both = {f"{part}.{name}": value for part in ("student", "teacher") for name, value in weights.items()}
    path = tmp_path / "checkpoint.pt"
    torch.save(both, path)
    with pytest.raises(CheckpointError, match=r"holds several networks of that form \('student\.', 'teacher\.'\)"):
        pretrained.load_published(path, _spec(path))
    torch.save({"model": weights, "net": weights}, path)
    with pytest.raises(CheckpointError, match=r"holds several networks \(model, net\)"):
        pretrained.load_published(path, _spec(path))


def test_weights_without_a_place_are_named(classifier: Classifier, tmp_path: Path) -> None:
    path = _publish(tmp_path / "checkpoint.pth.tar", classifier, _plain)
    content = torch.load(path, weights_only=True)
    content["state_dict"]["0.denoise.weight"] = torch.ones(3)
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"does not have: 0\.denoise\.weight"):
        _imported(path, tmp_path)


def test_an_input_layer_that_only_centres_is_stored(classifier: Classifier, tmp_path: Path) -> None:
    path = _publish(tmp_path / "checkpoint.pth.tar", classifier, _plain)
    inputs, info = torch.rand(4, 3, 32, 32), dataset_info("cifar10")
    expected = classifier.network(inputs - torch.tensor(info.mean).view(-1, 1, 1))
    found = _imported(path, tmp_path, input_layer="center")
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
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "cannot be read: truncated or damaged"),
        (lambda path: path.write_text("no checkpoint"), "cannot be read"),
        (lambda path: _without(path, "state_dict"), r"has no state_dict in it \(holds: epoch, arch, optimizer\)"),
        (lambda path: torch.save([1, 2], path), "holds a list, not a checkpoint"),
        (lambda path: torch.save(nn.Linear(2, 2), path), "a pickled object of class torch.nn.modules.linear"),
    ],
)
def test_what_is_no_published_checkpoint_is_named(
    classifier: Classifier, tmp_path: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    path = _publish(tmp_path / "checkpoint.pth.tar", classifier, _plain)
    spoil(path)
    with pytest.raises(CheckpointError, match=message):
        _imported(path, tmp_path)


def test_another_architecture_is_named(classifier: Classifier, tmp_path: Path) -> None:
    path = _publish(tmp_path / "checkpoint.pth.tar", classifier, _plain, arch="cifar_resnet110")
    with pytest.raises(CheckpointError, match=r"write train\.architecture=cifar_resnet110"):
        _imported(path, tmp_path)
    path = _publish(tmp_path / "checkpoint.pth.tar", classifier, _plain, arch="cifar_resnet56")
    with pytest.raises(
        CheckpointError, match=r"not those of a cifar_resnet56 .* those of a cifar_resnet20: write model="
    ):
        _imported(path, tmp_path, architecture="cifar_resnet56")


class _Evil(nn.Module):
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("evil"),))


def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "checkpoint.pth.tar"
    torch.save({"arch": ARCHITECTURE, "state_dict": {"1.fc.weight": _Evil()}}, path)
    with pytest.raises(CheckpointError):
        _imported(path, tmp_path)
    torch.save({"state_dict": {"1.fc.weight": torch.zeros(1)}, "args": _Evil()}, path)
    with pytest.raises(CheckpointError):
        _imported(path, tmp_path)
    assert not (tmp_path / "evil").exists()


def test_what_is_wrong_with_a_file_is_said_before_anything_is_written(
    classifier: Classifier, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = make_tree(tmp_path / "tree", per_class={"train": 1, "test": 1})
    path = _publish(tmp_path / "a, b=c.pth.tar", classifier, _plain)
    (tmp_path / "text.pth.tar").write_text("hello")
    blocks = f"[{{checkpoint: ['{path}', '{tmp_path}/text.pth.tar'], sigma: 0.25}}]"
    command = [
        "train.method=gaussian",
        *("grid=pretrained", f"grid.blocks={blocks}", "model=cifar_resnet56", "train.dataset=cifar10_images"),
        *(f"data.cifar10_images={tree}", f"results={tmp_path / 'results'}", "cluster=debug"),
    ]
    assert run_command("launch", launch, command) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error: train.checkpoint: {path}: holds a '{ARCHITECTURE}', but the configuration says")
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
        "train.method=gaussian",
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


@pytest.mark.parametrize("given", [[], ["train.method=gaussian"], ["train.sigma=0.5"]])
def test_method_and_sigma_of_a_checkpoint_are_never_assumed(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    path.write_text("any file has a hash")
    command = ["grid=pretrained", f"train.checkpoint={path}", f"results={tmp_path / 'results'}", *given]
    assert run_command("launch", launch, command) == 2
    missing = {"train.method", "train.sigma"} - {option.partition("=")[0] for option in given}
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"error: {name}: a value is required, because {path} does not say how it was trained; write {name}=VALUE"
        for name in sorted(missing)
    ]


def test_weights_of_safetensors_and_of_our_own_runs_are_read(classifier: Classifier, tmp_path: Path) -> None:
    inputs = torch.rand(4, 3, 32, 32)
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(classifier.network.state_dict(), path)
    assert torch.equal(_imported(path, tmp_path)(inputs), classifier(inputs))
    own = tmp_path / "checkpoint.pt"
    checkpoint.save_classifier(own, classifier, _spec(path))
    assert torch.equal(_imported(own, tmp_path)(inputs), classifier(inputs))
