"""Self-describing checkpoints: trained classifiers, and the state from which training resumes."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from jobs.atomic import write_atomically
from jobs.errors import CheckpointError, ConfigError
from jobs.networks.classifier import Classifier, classifier_for, input_statistics
from jobs.networks.file_kinds import describe, is_safetensors
from jobs.networks.stand_ins import stand_ins
from jobs.plugins import loading
from jobs.specs.keys import canonical_json, differences
from jobs.specs.train import TrainSpec, train_fields

FORMAT = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedClassifier:
    """A classifier read from a checkpoint."""

    classifier: Classifier  # in evaluation mode, its parameters without gradients
    weights_sha256: str  # hash of its weights, equal to that in the checkpoint
    plugins: Mapping[str, str]  # hash of the files of the plug-ins that it was trained with, by package


def save_classifier(path: Path, classifier: Classifier, spec: TrainSpec) -> None:
    """Write a trained classifier with all that is needed to rebuild and to identify it.

    A checkpoint that is there already stays: shards may have been certified with its weights.
    """
    info = spec.info
    mean, std = input_statistics(spec.input_layer, info)
    content = {
        "format": FORMAT,
        "spec": train_fields(spec),
        "architecture": spec.architecture,
        "dataset": spec.dataset,
        "num_classes": info.num_classes,
        "image_shape": list(info.image_shape),
        "mean": list(mean),
        "std": list(std),
        "sigma": spec.sigma,
        "state_dict": classifier.state_dict(),
        "weights_sha256": weights_sha256(classifier.state_dict()),
        **plugins_of(spec),
    }
    save(path, content, replace=False)


def load_classifier(path: Path, spec: TrainSpec, device: torch.device) -> TrainedClassifier:
    """The classifier of a checkpoint, which must belong to ``spec``.

    Raises:
        CheckpointError: The file is missing, damaged, or of another spec; names what differs.
        ConfigError: Its plug-in cannot be built, or is not the one that it was trained with.
    """
    content = load(path)
    check_spec(path, content.get("spec"), spec)
    classifier = classifier_for(spec)
    try:
        classifier.load_state_dict(content["state_dict"])
        expected = content["weights_sha256"]
    except (KeyError, RuntimeError, TypeError) as error:
        check_plugins(path, content, spec)
        raise CheckpointError(f"{path}: not a checkpoint of a classifier ({error})") from error
    found = weights_sha256(classifier.state_dict())
    if found != expected:
        raise CheckpointError(f"{path}: damaged: its weights have hash {found[:12]}, expected {expected[:12]}")
    classifier.to(device).eval().requires_grad_(False)
    return TrainedClassifier(classifier=classifier, weights_sha256=found, plugins=content.get("plugins", {}))


def plugins_of(spec: TrainSpec) -> dict[str, Any]:
    """The entry of a checkpoint for the files of its plug-ins; empty without plug-ins."""
    return {"plugins": loading.hashes(spec.plugins)} if spec.plugins else {}


def check_plugins(path: Path, content: Mapping[str, Any], spec: TrainSpec) -> None:
    """Raise ConfigError if a checkpoint or a state was made with other files of its plug-ins."""
    found, now = content.get("plugins", {}), loading.hashes(spec.plugins)
    for package, sha256 in now.items():
        if found.get(package, sha256) != sha256:
            raise ConfigError(
                f"{path}: made with other files of the plug-in {package} ({found[package][:12]}, now {sha256[:12]}); "
                f"restore them, raise its VERSION to train a new model, or remove {path}"
            )


def weights_sha256(state_dict: dict[str, torch.Tensor]) -> str:
    """A hash of names, shapes and exact values of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state_dict.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save(path: Path, content: dict[str, Any], *, replace: bool = True) -> None:
    """Write a dictionary of tensors and plain values atomically; without ``replace``, an existing file stays."""
    write_atomically(path, lambda temporary: torch.save(content, temporary), load, replace=replace)


def load(path: Path) -> dict[str, Any]:
    """The content of a file that ``save`` wrote, tensors on the CPU; raises as ``load_untrusted``."""
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint; launch again to train it")
    content = load_untrusted(path, foreign=False)  # our own files need no stand-ins
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of this format ({FORMAT})")
    return content


def load_untrusted(path: Path, *, foreign: bool = True) -> object:
    """What a checkpoint file holds, tensors on the CPU; nothing in the file is executed.

    ``foreign`` says whether objects that are neither tensors nor plain values (numbers of numpy, settings in classes of
    another project, whole modules) come as ``StandIn``, or make the file unreadable. Raises CheckpointError that says
    what the file is instead.
    """
    # Read first, so that an error of the disk is not reported as a damaged file.
    data = path.read_bytes()
    problem = describe(data)
    if problem is not None:
        raise CheckpointError(f"{path}: cannot be read: it {problem}")
    try:
        if is_safetensors(data):
            return safetensors.torch.load(data)
        with torch.serialization.safe_globals(stand_ins(data) if foreign else []):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # of any type: torch's unpickler trusts the structure of what it is given
        raise CheckpointError(f"{path}: cannot be read: truncated or damaged ({len(data)} bytes)") from error


def check_spec(path: Path, found: Any, spec: TrainSpec) -> None:
    """Raise CheckpointError unless a file contains the expected spec."""
    expected = train_fields(spec)
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: contains no training spec; not one of our checkpoints")
    if canonical_json(found) != canonical_json(expected):
        raise CheckpointError(f"{path}: a checkpoint of another spec ({differences(found, expected)})")
