"""Classifiers trained elsewhere: the published ``checkpoint.pth.tar`` files, taken over as runs.

Such a file holds ``arch``, ``state_dict``, ``epoch`` and ``optimizer``. Its model is a Sequential of
an input layer, which has no weights, and the network, so that names begin with ``1.``; networks
that were trained by DataParallel have ``module.`` after that (or before all).

Source: the code published with Salman et al. 2019 and Cohen et al. 2019.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jobs.datasets import dataset_info
from jobs.errors import CheckpointError, ConfigError
from jobs.files.store import Store
from jobs.networks import checkpoint
from jobs.networks.classifier import Classifier, build_classifier
from jobs.specs.train import TrainSpec


def take_over(spec: TrainSpec, store: Store) -> None:
    """Write the run's checkpoint from the published file that its spec names by hash.

    Raises:
        CheckpointError: The file is missing, is another, or does not hold a network of the
            spec's architecture; names what does not fit.
    """
    assert spec.checkpoint_sha256 is not None
    path = store.source_path(spec.checkpoint_sha256)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file; launch again with train.checkpoint=PATH to bring it in")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != spec.checkpoint_sha256:
        raise CheckpointError(f"{path}: damaged, it hashes to {found[:12]}; remove it and launch again")
    classifier = load_published(path, spec.architecture, spec.dataset)
    if spec.input_layer == "center":
        classifier.normalize.std.fill_(1.0)
    checkpoint.save_classifier(store.checkpoint_path(spec.key), classifier, spec)
    logging.info("took over %s as %s", path, store.checkpoint_path(spec.key))


def load_published(path: Path, architecture: str, dataset: str) -> Classifier:
    """The classifier of a published checkpoint, normalising with the dataset's means and deviations.

    Raises:
        CheckpointError: As ``read_published``, or its weights do not fit the architecture and dataset.
        ConfigError: There is no such architecture for the dataset.
    """
    state_dict = read_published(path, architecture)
    classifier = build_classifier(architecture, dataset_info(dataset))
    try:
        classifier.network.load_state_dict(state_dict)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: its weights are not those of a {architecture} for {dataset} "
            f"({' '.join(str(error).split())[:300]})"
        ) from error
    return classifier


def read_published(path: Path, architecture: str) -> dict[str, Tensor]:
    """The network's weights of a published checkpoint, by the names that our network has.

    Args:
        path: The file; nothing in it is executed.
        architecture: What it must say it is.

    Raises:
        CheckpointError: It cannot be read, or is of another architecture or form.
    """
    content = checkpoint.load_untrusted(path)
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(f"{path}: not a published checkpoint: no state_dict in it")
    if content.get("arch") != architecture:
        raise CheckpointError(
            f"{path}: holds a {content.get('arch')!r}, the configuration says {architecture!r}; "
            f"write train.architecture={content.get('arch')}"
        )
    return {_network_name(path, name): _tensor(path, name, value) for name, value in content["state_dict"].items()}


def _network_name(path: Path, name: str) -> str:
    inner = name.removeprefix("module.")
    if not inner.startswith("1."):
        raise CheckpointError(
            f"{path}: unexpected weight {name!r}: its input layer must come first, and has no weights"
        )
    return inner.removeprefix("1.").removeprefix("module.")


def _tensor(path: Path, name: str, value: Any) -> Tensor:
    if not isinstance(value, torch.Tensor):
        raise CheckpointError(f"{path}: {name!r} in its state_dict is not a tensor")
    return value


def main(arguments: Sequence[str]) -> int:
    """``PATH ARCHITECTURE DATASET``, three by three; exit code 2 and why, unless all can be taken over."""
    problems = []
    for path, architecture, dataset in zip(*[iter(arguments)] * 3, strict=True):
        try:
            load_published(Path(path), architecture, dataset)
        except (CheckpointError, ConfigError, OSError) as error:
            problems += str(error).splitlines()
    for problem in problems:
        print(f"error: train.checkpoint: {problem}", file=sys.stderr)
    return 2 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
