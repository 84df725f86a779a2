import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from jobs.datasets import dataset_info, load_images
from jobs.errors import CheckpointError, ConfigError
from jobs.files.store import Store
from jobs.networks import checkpoint
from jobs.networks.classifier import build_classifier
from tests.jobs.units import GAUSSIAN_RUN, PGD_RUN
from tests.trees import inputs_of

CPU = torch.device("cpu")
SPEC = GAUSSIAN_RUN.train


@pytest.fixture
def path(tmp_path: Path, undisturbed_results: Path) -> Path:
    source = Store(undisturbed_results).checkpoint_path(SPEC.key)
    return Path(shutil.copy(source, tmp_path / "checkpoint.pt"))


def test_a_checkpoint_gives_back_the_classifier(path: Path) -> None:
    trained = checkpoint.load_classifier(path, SPEC, CPU)
    images = load_images("digits", "test")
    predictions = trained.classifier(torch.from_numpy(inputs_of(images))).argmax(dim=1)
    assert (predictions.numpy() == images.labels).mean() > 0.8
    assert not trained.classifier.training


def test_a_checkpoint_describes_itself(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    assert content["architecture"] == "digits_cnn"
    assert content["num_classes"] == 10
    assert content["sigma"] == 0.25
    assert content["mean"] == [0.305]
    assert content["spec"]["seed"] == 0


@pytest.mark.parametrize("kept", [0, 100, 5000, -1])
def test_a_truncated_checkpoint_is_named(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=rf"{path.name}: cannot be read: truncated or damaged"):
        checkpoint.load_classifier(path, SPEC, CPU)


def test_a_missing_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="launch again to train it"):
        checkpoint.load_classifier(tmp_path / "checkpoint.pt", SPEC, CPU)


def test_a_checkpoint_of_another_spec_is_refused(path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"another spec .*method is 'gaussian', expected 'smoothadv'"):
        checkpoint.load_classifier(path, PGD_RUN.train, CPU)


def test_changed_weights_are_noticed(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    next(iter(content["state_dict"].values())).view(-1)[0] += 1e-6
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="damaged: its weights have hash"):
        checkpoint.load_classifier(path, SPEC, CPU)


def test_weights_of_another_architecture_are_refused(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    content["state_dict"].popitem()
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="not a checkpoint of a classifier"):
        checkpoint.load_classifier(path, SPEC, CPU)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save({"format": 1, "spec": Path("anything")}, path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(path)


def test_something_else_saved_by_torch_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="not a checkpoint of this format"):
        checkpoint.load(path)


def test_an_unknown_architecture_names_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown architecture 'vgg'; valid: .*digits_cnn"):
        build_classifier("vgg", dataset_info("digits"))


def test_normalisation_is_inside_the_classifier() -> None:
    classifier = build_classifier("digits_cnn", dataset_info("digits")).eval()
    inputs = torch.rand(3, 1, 8, 8)
    assert torch.allclose(classifier(inputs), classifier.network((inputs - 0.305) / 0.376), atol=1e-6)


def test_the_hash_depends_on_every_value() -> None:
    weights = {"a": torch.zeros(3), "b": torch.ones(2)}
    changed = {**weights, "b": torch.tensor([1.0, 1.0 + 2**-23])}
    assert checkpoint.weights_sha256(weights) == checkpoint.weights_sha256(dict(reversed(weights.items())))
    assert checkpoint.weights_sha256(weights) != checkpoint.weights_sha256(changed)


def test_a_spec_that_differs_in_seed_alone_is_refused(path: Path) -> None:
    with pytest.raises(CheckpointError, match="seed is 0, expected 1"):
        checkpoint.load_classifier(path, replace(SPEC, seed=1), CPU)
