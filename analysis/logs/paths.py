"""The grammar of the paths of published logs: each folder's name says one or more parameters.

A path is read folder by folder; a name either matches one of the rules below as a whole or goes to
``variant``. Nothing is inferred from a part of a name that no rule knows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from analysis.logs.files import MAX_INT32
from jobs.datasets import dataset_names
from jobs.errors import RecordError

EPSILON_UNIT = 1 / 256
"""eps_255 is 255/256: the published code divides by 256 (its README says 255)."""

DATASETS = sorted({"cifar10", "imagenet", *dataset_names()})
"""The published ones, and ours, whose exports are read back."""

Fields = dict[str, Any]
Rule = tuple[str, Callable[[re.Match[str]], tuple[Fields, list[str]]]]
"""What a folder may be called, and what it then says: fields, and what of the name goes to ``variant``."""


@dataclass(frozen=True, kw_only=True)
class LogPath:
    """What a log's path says.

    Attributes:
        kind: certification (``.../sigma_0.50``) or prediction (``.../predictions``).
        fields: Record columns by name; those that the path does not give are absent.
        variant: The folders that no rule knows, joined by a slash.
    """

    kind: Literal["certification", "prediction"]
    fields: Mapping[str, Any]
    variant: str


def parse_log_path(path: PurePosixPath) -> LogPath | None:
    """The parameters in a path below the root of a tree of logs.

    Args:
        path: Relative to the root, for example
            ``data/certify/cifar10/PGD_2steps/eps_64/cifar10/resnet110/noise_0.25/test/sigma_0.25``.

    Returns:
        None where the file's name is not one of a log.

    Raises:
        RecordError: The path contradicts itself, or does not give what every record needs.
    """
    if re.fullmatch(r"sigma_\d+(\.\d+)?", path.name):
        fields, variant = _read_parts(path, _CERTIFICATION_RULES)
        says_m_train = "m_train" in fields or not re.search("multi", str(path), re.IGNORECASE)
        return _checked("certification", _completed(fields, one_draw=says_m_train), variant)
    if path.name == "predictions":
        fields, variant = _read_parts(path, _PREDICTION_RULES)
        if "m_test" in fields:
            fields.setdefault("estimator", "smoothed")
        return _checked("prediction", fields, variant)
    return None


_REQUIRED = {
    "certification": ("dataset", "split", "sigma_cert"),
    "prediction": ("dataset", "n", "attack", "attack_epsilon", "estimator"),
}


def _checked(kind: Literal["certification", "prediction"], fields: Fields, variant: str) -> LogPath:
    missing = [name for name in _REQUIRED[kind] if name not in fields]
    if missing:
        raise RecordError(f"path: does not give {', '.join(missing)}")
    unfit = [f"{name} is {value}" for name, value in fields.items() if not _fits(name, value)]
    if unfit:
        raise RecordError(f"path: {', '.join(unfit)}, which no record can hold")
    return LogPath(kind=kind, fields=fields, variant=variant)


def _fits(name: str, value: Any) -> bool:
    if isinstance(value, int):
        return value <= MAX_INT32
    return not isinstance(value, float) or (math.isfinite(value) and (name != "sigma_cert" or value > 0))


def _read_parts(path: PurePosixPath, rules: tuple[Rule, ...]) -> tuple[Fields, str]:
    fields: Fields = {}
    unknown: list[str] = []
    for part in path.parts:
        found, rest = _read_part(part, rules)
        unknown += rest
        for name, value in found.items():
            if fields.setdefault(name, value) != value:
                raise RecordError(
                    f"contradictory: {name} is {fields[name]!r} elsewhere in the path and {value!r} in {part!r}"
                )
    return fields, "/".join(unknown)


def _read_part(part: str, rules: tuple[Rule, ...]) -> tuple[Fields, list[str]]:
    for pattern, read in rules:
        match = re.fullmatch(pattern, part)
        if match:
            return read(match)
    return {}, [part]


def _says(**fields: Any) -> Callable[[re.Match[str]], tuple[Fields, list[str]]]:
    """A rule whose values are constants, or functions of the match's first group."""
    return lambda match: ({name: value(match[1]) if callable(value) else value for name, value in fields.items()}, [])


def _attack(match: re.Match[str]) -> tuple[Fields, list[str]]:
    """PGD_2steps, DDN_4steps_multiNoiseSamples, self_training_PGD_2steps, PGD_6steps_30epochs_multinoise."""
    fields: Fields = {"attack": match["attack"].lower(), "num_steps": int(match["steps"])}
    rest = [name for name in (match["before"], match["after"]) if name]
    if match["after"] in ("_multiNoiseSamples", "_baseAttackExp"):
        rest.remove(match["after"])
    return fields, [name.strip("_") for name in rest]


def _baseline(match: re.Match[str]) -> tuple[Fields, list[str]]:
    """Cohen et al.'s own models, and their replication: recognisable by name, and worth keeping apart."""
    return {"method": "gaussian"}, [match[0]]


def _attack_noise(match: re.Match[str]) -> tuple[Fields, list[str]]:
    """PGD_2steps_baseAttackExp/with_noise: is the smoothed classifier attacked, or the base classifier?

    The published script draws with_noise as the paper's own method (noise during the attack) and
    without_noise as vanilla PGD, with noise augmentation where noise_X is above 0.
    """
    return ({"method": "smoothadv" if match[1] == "with" else "vanilla"}, [match[0]])


def _predict(match: re.Match[str]) -> tuple[Fields, list[str]]:
    dataset = {"cifar": "cifar10", "imagenet": "imagenet"}[match[1]]
    return {"dataset": dataset, "method": "gaussian" if match[2] == "cohen" else "smoothadv"}, []


def _num_samples(match: re.Match[str]) -> tuple[Fields, list[str]]:
    return {"n": int(match[1]), **({"estimator": "gradient_free"} if match[2] else {})}, []


_COMMON_RULES: tuple[Rule, ...] = (
    (r"data|certify|predict", _says()),
    (rf"({'|'.join(DATASETS)})", _says(dataset=str)),
    (r"(resnet\d+)", _says(architecture=str)),
    (r"(train|test)", _says(split=str)),
)

_CERTIFICATION_RULES: tuple[Rule, ...] = (
    *_COMMON_RULES,
    (r"data_cohen", _says(method="gaussian")),
    (r"cohen|replication", _baseline),
    (r"noise_(\d+(?:\.\d+)?)", _says(sigma_train=float)),
    (r"sigma_(\d+(?:\.\d+)?)", _says(sigma_cert=float)),
    (r"eps_(\d+)", _says(epsilon=lambda text: float(text) * EPSILON_UNIT)),
    (r"(\d+)-multitrain", _says(m_train=int)),
    (r"(?P<before>self_training_)?(?P<attack>PGD|DDN)_(?P<steps>\d+)steps?(?P<after>(?:_[A-Za-z0-9]+)*)", _attack),
    (r"(with|without)_noise", _attack_noise),
)

_PREDICTION_RULES: tuple[Rule, ...] = (
    *_COMMON_RULES,
    (r"predict_(cifar|imagenet)_(cohen|ours)", _predict),
    (r"N(\d+)(_nogradtrick)?", _num_samples),
    (r"(PGD|DDN)_(\d+\.\d+)", lambda match: ({"attack": match[1].lower(), "attack_epsilon": float(match[2])}, [])),
    (r"num_(\d+)", _says(m_test=int)),
    (r"base", _says(estimator="base")),
    (r"predictions", _says()),
)


def _completed(fields: Fields, *, one_draw: bool) -> Fields:
    """What follows from what a path says: see the data's own description of its layout."""
    if fields.get("method") == "gaussian" and "attack" not in fields:
        return {**fields, "attack": "none", "epsilon": 0.0, "m_train": 1, "num_steps": 0}
    if "attack" not in fields:
        return fields
    completed = {"method": "smoothadv", **({"m_train": 1} if one_draw else {}), **fields}
    if completed["method"] == "vanilla" and fields.get("sigma_train", 0.0) > 0:
        completed["method"] = "vanilla_noise"
    return completed
