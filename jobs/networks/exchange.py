"""Weights as .safetensors beside a JSON file with the rest of a checkpoint, and back without loss.

Asked (``jobs.plugins.isolated``): models from one results folder to another, for processes without torch.
"""

from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from jobs.atomic import read_json, write_atomically, write_json
from jobs.errors import CheckpointError
from jobs.files.store import Store
from jobs.networks.checkpoint import load, save, weights_sha256
from jobs.plugins import isolated
from jobs.specs.train import TrainSpec
from jobs.validation import build


def export_weights(source: Store, target: Store, key: str) -> None:
    """Write the checkpoint of a model as two files in open formats. Raises CheckpointError if it is damaged."""
    content = load(source.checkpoint_path(key))
    weights = {name: tensor.clone().contiguous() for name, tensor in content.pop("state_dict").items()}
    _check(source.checkpoint_path(key), key, content, weights)
    write_json(target.config_path(key), content)
    write_atomically(target.weights_path(key), lambda path: safetensors.torch.save_file(weights, path))


def import_weights(source: Store, target: Store, key: str) -> None:
    """Write the checkpoint of two such files. Raises CheckpointError if another one exists."""
    content, weights = read_json(source.config_path(key)), safetensors.torch.load_file(source.weights_path(key))
    _check(source.weights_path(key), key, content, weights)
    path = target.checkpoint_path(key)
    if not path.exists():
        save(path, {**content, "state_dict": weights}, replace=False)
    elif load(path).get("weights_sha256") != content["weights_sha256"]:
        raise CheckpointError(f"{path}: a model with this name and other weights exists; import into another folder")


def _check(path: Path, key: str, content: dict[str, Any], weights: dict[str, Tensor]) -> None:
    if build(TrainSpec, content["spec"], where="spec").key != key:
        raise CheckpointError(f"{path}: not the model {key}")
    if weights_sha256(weights) != content["weights_sha256"]:
        raise CheckpointError(f"{path}: damaged: its weights differ from those that were trained")


def main(folder: Path) -> None:
    """Run exchanges, each [export or import, source, target, train key]; answer with the problems."""
    isolated.answer_problems(folder, _exchange)


def _exchange(action: str, source: str, target: str, key: str) -> None:
    {"export": export_weights, "import": import_weights}[action](Store(Path(source)), Store(Path(target)), key)
