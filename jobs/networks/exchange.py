"""Weights as .safetensors beside a JSON file with the rest of a checkpoint, and back without loss.

python -m jobs.networks.exchange export|import SOURCE TARGET KEY...: for processes that do not import torch; SOURCE and
TARGET are results folders. Exit code 1 and one line per model that cannot be exchanged.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from jobs.atomic import read_json, write_atomically, write_json
from jobs.errors import CheckpointError, ConfigError
from jobs.files.store import Store
from jobs.networks.checkpoint import load, save, weights_sha256
from jobs.specs.train import TrainSpec
from jobs.validation import build


def export_weights(source: Store, target: Store, key: str) -> None:
    """Write the checkpoint of a model as two open files. Raises CheckpointError where it is damaged."""
    content = load(source.checkpoint_path(key))
    weights = {name: tensor.clone().contiguous() for name, tensor in content.pop("state_dict").items()}
    _check(source.checkpoint_path(key), key, content, weights)
    write_json(target.config_path(key), content)
    write_atomically(target.weights_path(key), lambda path: safetensors.torch.save_file(weights, path))


def import_weights(source: Store, target: Store, key: str) -> None:
    """Write the checkpoint that two files came from. Raises CheckpointError where another one is there already."""
    content, weights = read_json(source.config_path(key)), safetensors.torch.load_file(source.weights_path(key))
    _check(source.weights_path(key), key, content, weights)
    path = target.checkpoint_path(key)
    if not path.exists():
        save(path, {**content, "state_dict": weights}, replace=False)
    elif load(path).get("weights_sha256") != content["weights_sha256"]:
        raise CheckpointError(f"{path}: there is a model of this name with other weights; import into another folder")


def _check(path: Path, key: str, content: dict[str, Any], weights: dict[str, Tensor]) -> None:
    if build(TrainSpec, content["spec"], where="spec").key != key:
        raise CheckpointError(f"{path}: not the model {key}")
    if weights_sha256(weights) != content["weights_sha256"]:
        raise CheckpointError(f"{path}: damaged, its weights are not those that were trained")


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    action, source, target, *keys = arguments
    exchange, exit_code = {"export": export_weights, "import": import_weights}[action], 0
    for key in keys:
        try:
            exchange(Store(Path(source)), Store(Path(target)), key)
        except (CheckpointError, ConfigError, OSError, KeyError) as error:
            print(f"error: {error}", file=sys.stderr)
            exit_code = 1
    return exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
