"""Ensembles of finished runs: ``model: "ensemble:KEY+KEY"``. They are not trained."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jobs.atomic import read_json
from jobs.errors import ConfigError, refuse
from jobs.files.store import Store
from jobs.plugins import ENSEMBLE, Plugin
from jobs.specs.train import TrainSpec, train_fields
from jobs.validation import build
from pipeline.request.checkpoints import sha256_of

_PREFIX = "ensemble:"
_AXES = ("model", "architecture", "sigma_cert")
_NOT_TRAINED: Mapping[str, Any] = {
    "method": "gaussian",
    "epochs": 1,
    "batch_size": 1,
    "learning_rate": 1.0,
    "lr_step_epochs": 1,
    "lr_gamma": 1.0,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "seed": 0,
}
"""Fields without meaning for an ensemble: constant, so that its key depends only on its members."""


def member_keys(values: Mapping[str, Any]) -> list[str]:
    """The train keys of an ensemble's members, sorted because their order changes nothing; empty for other models."""
    name = values.get("model") or values.get("architecture")
    is_one = isinstance(name, str) and name.startswith(_PREFIX)
    return sorted(str(name).removeprefix(_PREFIX).split("+")) if is_one else []


def ensemble_fields(values: Mapping[str, Any], axes: Iterable[str], results: Path) -> dict[str, Any]:
    """The fields of the TrainSpec of an ensemble, for the values of a model and the axes that its block sets.

    Raises ConfigError with all problems: missing members, members that do not fit together, axes without effect.
    """
    keys, store = member_keys(values), Store(results)
    name = f"{_PREFIX}{'+'.join(keys)}"
    problems = [f"{name}: {axis} has no effect on an ensemble; leave it out" for axis in axes if axis not in _AXES]
    if len(set(keys)) < max(2, len(keys)):
        problems.append(f"{name}: write two or more different runs, as {_PREFIX}KEY+KEY")
    members = {}
    for key in keys:
        try:
            members[key] = _member(store, key)
        except (OSError, ValueError) as error:
            problems += getattr(error, "problems", [f"{store.spec_path(key)}: cannot be read ({error})"])
    if len(members) == len(keys):
        problems += [f"{name}: {problem}" for problem in _differences(members)]
    refuse(problems)
    first = members[keys[0]]
    options = [
        {"train": train_fields(member), "sha256": sha256_of(str(store.checkpoint_path(key)))}
        for key, member in members.items()
    ]
    model = Plugin(name=ENSEMBLE, options={"members": options})
    own = {"dataset": first.dataset, "data": first.data, "sigma": first.sigma, "architecture": ENSEMBLE, "model": model}
    return {**_NOT_TRAINED, **own}


def _member(store: Store, key: str) -> TrainSpec:
    if not key or "/" in key or not store.is_trained(key):
        raise ConfigError(
            f"{_PREFIX}{key}: {store.checkpoint_path(key)} is missing or damaged; finish training that run first"
        )
    fields = {name: value for name, value in read_json(store.spec_path(key)).items() if name != "key"}
    member = build(TrainSpec, fields, where=str(store.spec_path(key)))
    if member.members or member.key != key:
        reason = "it is an ensemble itself" if member.members else f"{store.spec_path(key)} describes {member.key}"
        raise ConfigError(f"{_PREFIX}{key}: cannot be a member: {reason}")
    return member


def _differences(members: Mapping[str, TrainSpec]) -> Iterator[str]:
    if len({member.source for member in members.values()}) > 1:
        named = ", ".join(f"{key} of {member.dataset}" for key, member in members.items())
        yield f"its members must be trained on the same data set ({named})"
    sigmas = sorted({member.sigma for member in members.values()})
    if len(sigmas) > 1 or sigmas[0] == 0:
        yield f"its members must be trained with the same sigma > 0 (they have {', '.join(map(str, sigmas))})"
