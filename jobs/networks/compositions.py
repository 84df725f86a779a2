"""Base classifiers composed of others: an ensemble of finished runs, and a denoiser in front of a classifier.

Asked (``jobs.plugins.isolated``): make the checkpoints of ensembles, of which nothing is trained.

Shapes: B images, C H W, K classes, N members.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from jobs.atomic import file_sha256
from jobs.errors import CheckpointError
from jobs.files.manifest import write_spec
from jobs.files.store import Store
from jobs.networks import checkpoint
from jobs.networks.classifier import Ensemble, classifier_for
from jobs.plugins import isolated
from jobs.specs.train import TrainSpec
from jobs.validation import build


def main(folder: Path) -> None:
    """Answer trainings with the checkpoints of their members, each [fields, paths, results], with all problems."""
    isolated.answer_problems(folder, compose)


def compose(fields: dict[str, Any], paths: Sequence[str], results: str) -> None:
    """Write the checkpoint of an ensemble, from those of its members, in their order.

    Raises:
        CheckpointError: One is missing, damaged, or not the one that the spec names by its hash.
        ConfigError: A plug-in of a member cannot be used, or is not the one that it was trained with.
    """
    spec, store = build(TrainSpec, fields, where="train"), Store(Path(results))
    composed = classifier_for(spec)
    ensemble = composed.network
    assert isinstance(ensemble, Ensemble)
    for own, member, sha256, path in zip(ensemble.members, spec.members, spec.member_hashes, paths, strict=True):
        trained = checkpoint.load_classifier(Path(path), member, torch.device("cpu"))
        if file_sha256(Path(path)) != sha256:
            raise CheckpointError(f"{path}: changed while the ensemble was put together; launch again")
        checkpoint.check_plugins(Path(path), {"plugins": trained.plugins}, member)
        own.load_state_dict(trained.classifier.state_dict())
    write_spec(store, spec)
    checkpoint.save_classifier(store.checkpoint_path(spec.key), composed, spec)
