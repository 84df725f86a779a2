"""Finds the weights of a network in a checkpoint with an unknown layout.

Nothing rests on how a file names its parts: the weights are wherever the names that the network
itself has are found in full, whatever stands before them (``1.``, ``module.``, ``_orig_mod.``,
``model.``), and everything else in there must be known for what it is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jobs.errors import CheckpointError
from jobs.wording import some

_HOLDERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params")
_OTHER_WEIGHTS = re.compile(r"ema|swa|averag|teacher", re.IGNORECASE)
_WRAPPERS = ("module", "_orig_mod")  # of DataParallel and DistributedDataParallel; of torch.compile
_MEANS = ("mean", "means", "mu")
_DEVIATIONS = ("std", "stds", "sd", "sds", "sigma")
_SIGMAS = ("sigma", "noise_sd", "noise_std")
_SETTINGS = ("args", "hyper_parameters", "hparams", "config", "opt")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a checkpoint of unknown layout holds."""

    weights: dict[str, Tensor]  # by their names in the network
    has_input_layer: bool  # whether the names show a layer in front of the network
    statistics: Tensor | None = None  # channel means and deviations that the file normalises with, shape (2, C)
    notes: tuple[str, ...] = ()  # for the user


def find_weights(content: object, expected: Mapping[str, Tensor], what: str) -> Found:
    """The network's weights in the content of a file; ``expected`` is such a network's state_dict, ``what`` its name.

    Raises CheckpointError if they are missing, or there are several, or other weights too.
    """
    tensors, notes = _tensors_of(content)
    names = {_unwrapped(name, expected): value for name, value in tensors.items()}
    if len(names) < len(tensors):
        raise CheckpointError(f"holds the same weights under several wrappers: {some(tensors)}")
    prefix = _prefix_of(names, expected, what)
    own = {f"{prefix}{name}" for name in expected}
    weights = {name.removeprefix(prefix): value for name, value in names.items() if name in own}
    statistics = _statistics({name: value for name, value in names.items() if name not in own}, what)
    for name, value in weights.items():
        if value.shape != expected[name].shape:
            raise CheckpointError(
                f"its weights are not those of a {what}: {name} has shape {tuple(value.shape)}, expected "
                f"{tuple(expected[name].shape)}"
            )
        if not value.isfinite().all():
            count = int((~value.isfinite()).sum())
            raise CheckpointError(
                f"{count} of {value.numel()} values of {name} are not finite, so it is not a classifier"
            )
    if dtypes := {value.dtype for value in weights.values() if value.is_floating_point()} - {torch.float32}:
        notes.append(f"its weights are {', '.join(sorted(map(str, dtypes)))}; they are converted to float32")
    has_input_layer = statistics is not None or re.search(r"(^|\.)1\.$", prefix) is not None
    return Found(weights=weights, has_input_layer=has_input_layer, statistics=statistics, notes=tuple(notes))


def stated_sigma(content: object) -> float | None:
    """The sigma of the training noise that a file states, if any."""
    if not isinstance(content, Mapping):
        return None
    for settings in (content, *(content.get(name) for name in _SETTINGS)):
        values = settings if isinstance(settings, Mapping) else getattr(settings, "__dict__", {})
        for value in map(values.get, _SIGMAS):
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                return float(value)
    return None


def _tensors_of(content: object) -> tuple[dict[str, Tensor], list[str]]:
    """The state_dict of a file, and notes on others in it."""
    if not isinstance(content, Mapping):
        raise CheckpointError(f"holds a {type(content).__name__}, not a checkpoint; save a state_dict")
    if _is_state_dict(content):
        return _tensors(content), []
    holders = [name for name in _HOLDERS if _is_state_dict(content.get(name))]
    others = [name for name, value in content.items() if _is_state_dict(value) and name not in holders]
    if not holders:
        keys = ", ".join(map(str, content)) or "nothing"
        raise CheckpointError(f"has no state_dict in it (holds: {keys}), so it is not a checkpoint of a classifier")
    if len(holders) > 1:
        raise CheckpointError(f"holds several networks ({', '.join(holders)}); save only the one to certify")
    notes = [f"{name} in it is not used; {holders[0]} is" for name in others if _OTHER_WEIGHTS.search(str(name))]
    return _tensors(content[holders[0]]), notes


def _is_state_dict(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and any(isinstance(item, Tensor) for item in value.values())
        and all(isinstance(name, str) for name in value)
        and "param_groups" not in value
        and "state_dict" not in value
    )


def _tensors(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    for name, value in state_dict.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{name!r} among its weights is not a tensor")
    return {name: value.detach() for name, value in state_dict.items()}


def _unwrapped(name: str, expected: Mapping[str, Tensor]) -> str:
    """A weight's name without the parts that wrappers add, unless the network has such parts itself."""
    own = {part for key in expected for part in key.split(".")}
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS or part in own)


def _prefix_of(names: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str) -> str:
    """The prefix of the network's names in a file."""
    # Files of torch before 0.4.1 have no such counters, and no forward pass of ours reads them.
    needed = [name for name in expected if not name.endswith("num_batches_tracked")]
    last = needed[-1]
    candidates = [name.removesuffix(last) for name in names if name == last or name.endswith(f".{last}")]
    complete = [prefix for prefix in candidates if all(f"{prefix}{name}" in names for name in needed)]
    if len(complete) > 1:
        shown = ", ".join(repr(prefix) for prefix in complete)
        raise CheckpointError(f"holds several networks of that form ({shown}); save only the one to certify")
    if complete:
        return complete[0]
    near = max(candidates, key=lambda prefix: sum(f"{prefix}{name}" in names for name in needed), default="")
    missing = [f"{near}{name}" for name in needed if f"{near}{name}" not in names]
    raise CheckpointError(f"its weights are not those of a {what}: it has no {some(missing)}, but has {some(names)}")


def _statistics(others: Mapping[str, Tensor], what: str) -> Tensor | None:
    """Means and deviations of a normalisation stored with the weights; other tensors are an error."""
    left = dict(others)
    found = []
    for known in (_MEANS, _DEVIATIONS):
        named = [name for name in left if name.rpartition(".")[2].lower().lstrip("_") in known]
        found += [left.pop(name).flatten().float() for name in named]
    if left:
        raise CheckpointError(f"holds weights that a {what} does not have: {some(left)}")
    if not found:
        return None
    if len(found) != 2 or len(found[0]) != len(found[1]):
        raise CheckpointError(f"its normalisation is not one mean and one deviation for each channel: {some(others)}")
    return torch.stack(found)
