"""Classifiers trained elsewhere: checkpoint files of any layout, imported as runs.

Asked (``jobs.plugins.isolated``): whether files can be imported, for a launch, which does not import torch.

The published files hold ``arch``, ``state_dict``, ``epoch`` and ``optimizer``; others hold what
their trainers wrote. Where the weights are is found out by content (``state_dicts``).

Source: the code published with Salman et al. 2019 and Cohen et al. 2019.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from jobs.architectures import architecture_names
from jobs.atomic import file_sha256
from jobs.errors import CheckpointError, ConfigError
from jobs.files.store import Store
from jobs.networks import checkpoint
from jobs.networks.classifier import Classifier, build_classifier, input_statistics, is_finite_on_grey, with_denoiser
from jobs.networks.stand_ins import StandIn
from jobs.networks.state_dicts import Found, find_weights, stated_sigma
from jobs.plugins import isolated
from jobs.specs.train import TrainSpec
from jobs.validation import build


def import_checkpoint(spec: TrainSpec, store: Store) -> None:
    """Write the run's checkpoint from the file that its spec names by hash; raises as ``load_source``."""
    classifier = load_source(spec, store)
    checkpoint.save_classifier(store.checkpoint_path(spec.key), classifier, spec)
    logging.info("imported %s as %s", spec.checkpoint_sha256, store.checkpoint_path(spec.key))


def load_source(spec: TrainSpec, store: Store) -> Classifier:
    """The classifier with the weights of the file that a spec names by hash.

    Raises CheckpointError if the file is missing, is another, or does not hold such a network; names what does not fit.
    """
    assert spec.checkpoint_sha256 is not None
    path = _source(spec.checkpoint_sha256, store)
    classifier, notes = load_published(path, spec)
    for note in notes:
        logging.info("%s", note)
    classifier = with_denoiser(classifier, spec)
    if spec.denoiser is not None and spec.denoiser_sha256 is not None:
        path, denoiser = _source(spec.denoiser_sha256, store), classifier.network.get_submodule("denoiser")
        try:
            weights = find_weights(checkpoint.load_untrusted(path), denoiser.state_dict(), spec.denoiser.name).weights
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
        denoiser.load_state_dict(weights)
    return classifier


def _source(sha256: str, store: Store) -> Path:
    """The path of a weight file that a spec names by its hash."""
    path = store.source_path(sha256)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file; launch again with train.checkpoint=PATH to copy it there")
    found = file_sha256(path)
    if found != sha256:
        raise CheckpointError(f"{path}: damaged: its hash is {found[:12]}; remove it and launch again")
    return path


def load_published(path: Path, spec: TrainSpec) -> tuple[Classifier, list[str]]:
    """The classifier in a checkpoint file that a spec describes, and notes about the file's layout.

    Nothing in the file is executed.

    Raises:
        CheckpointError: It cannot be read, is of another architecture or sigma, normalises otherwise,
            or its logits are not finite.
        ConfigError: There is no such architecture for the dataset.
    """
    content = checkpoint.load_untrusted(path)
    if isinstance(content, StandIn):
        name = f"{type(content).__module__}.{type(content).__qualname__}"
        raise CheckpointError(
            f"{path}: a pickled object of class {name}, which only its own code can load; load it there and save its "
            "state_dict()"
        )
    options = spec.model.options if spec.model else None
    classifier = build_classifier(spec.architecture, spec.info, spec.input_layer, options)
    notes = _statement_problems(path, content, spec)
    try:
        found = find_weights(content, classifier.network.state_dict(), f"{spec.architecture} for {spec.info.name}")
        notes += [*found.notes, *_input_layer_notes(found, spec)]
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}{_fitting(content, spec)}") from error
    classifier.network.load_state_dict(found.weights)
    if not is_finite_on_grey(classifier, spec.info):
        raise CheckpointError(f"{path}: its logits on a grey image are not finite, so it is not a classifier")
    return classifier, [f"{path}: {note}" for note in notes]


def _statement_problems(path: Path, content: object, spec: TrainSpec) -> list[str]:
    """Raise CheckpointError if statements in the file contradict the spec; returns notes on its other statements."""
    stated, arch = stated_sigma(content), content.get("arch") if isinstance(content, Mapping) else None
    # Behind a denoiser, sigma is the noise that the denoiser removes.
    has_own_sigma = spec.is_taken and spec.denoiser is None
    if has_own_sigma and stated is not None and stated != spec.sigma:
        raise CheckpointError(
            f"{path}: says that it was trained with sigma {stated}, but the configuration says {spec.sigma}; "
            f"write train.sigma={stated}"
        )
    if arch is None or arch == spec.architecture:
        return []
    if arch in architecture_names():
        raise CheckpointError(
            f"{path}: holds a {arch!r}, but the configuration says {spec.architecture!r}; write "
            f"train.architecture={arch}"
        )
    return [f"calls its architecture {arch!r}; its weights are those of a {spec.architecture}"]


def _input_layer_notes(found: Found, spec: TrainSpec) -> list[str]:
    """Raise CheckpointError if a file normalises differently; a note if it does not show its input layer."""
    input_layer, info = spec.input_layer, spec.info
    if found.statistics is not None:
        expected = torch.tensor(input_statistics(input_layer, info))
        is_same = found.statistics.shape == expected.shape
        if not (is_same and torch.allclose(found.statistics, expected, rtol=0, atol=5e-5)):
            shown = ", ".join(str([round(value, 4) for value in part]) for part in found.statistics.tolist())
            raise CheckpointError(
                f"normalises with means and deviations {shown}, but train.input_layer={input_layer} stands for "
                f"{list(info.mean)}, {list(info.std)} of {info.name} (center: deviations 1; none: means 0 as well)"
            )
    if found.has_input_layer:
        return []
    return [
        f"does not show the input layer before the network; assuming train.input_layer={input_layer} "
        "(normalize, center or none)"
    ]


def _fitting(content: object, spec: TrainSpec) -> str:
    """Which other architectures fit the weights."""
    fitting = []
    for name in architecture_names():
        try:
            if name != spec.architecture:
                find_weights(content, build_classifier(name, spec.info).network.state_dict(), name)
                fitting.append(name)
        except (CheckpointError, ConfigError, ValueError):
            continue
    return f"; they are those of a {' or '.join(fitting)}: write model={fitting[0]}" if fitting else ""


def main(folder: Path) -> None:
    """Check files to be imported, each [path, fields of its spec]; answer with their notes or problems."""
    isolated.answer(folder, lambda files: [_judged(*one) for one in files])


def _judged(path: str, fields: dict[str, Any]) -> dict[str, list[str]]:
    try:
        return {"notes": load_published(Path(path), build(TrainSpec, fields, where="train"))[1]}
    except (CheckpointError, ConfigError) as error:
        return {"problems": [" ".join(str(error).split())]}
    except OSError as error:
        return {"problems": [f"{path}: cannot be read ({error.strerror})"]}
