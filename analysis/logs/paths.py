"""The grammar of the paths of published logs: each folder's name gives one or more parameters.

A path is read folder by folder; a folder's name either matches one of the rules below as a whole or goes to
``variant``. The file's own name may say several things, joined by ``_`` or ``-``. Nothing is inferred from a part
of a name that no rule knows.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from analysis.logs.files import MAX_INT32, LogKind
from jobs.datasets import dataset_names
from jobs.errors import RecordError

Fields = dict[str, Any]
Rule = tuple[str, Mapping[str, Any]]
"""What a folder may be called, and what it then says besides. Groups of the pattern are named after the fields that
they give; those called kept go to ``variant``."""


@dataclass(frozen=True, kw_only=True)
class LogPath:
    """The parameters in a log's path."""

    fields: Mapping[str, Any]  # record columns by name; unknown ones are absent
    variant: str  # the folders, and parts of the file's name, that no rule knows, joined by a slash
    rank: int | None  # the process that wrote this part of the log; None if it is complete
    assumed: list[str]  # what records need, the path does not say, and published code makes likely; in words
    notes: list[str]  # messages where the mapping wins over the path


def parse_log_path(
    path: PurePosixPath, kind: LogKind, *, columns: Fields | None = None, given: Fields | None = None
) -> LogPath:
    """The parameters in a path below the root of a tree of logs: ``.../eps_64/cifar10/noise_0.25/test/sigma_0.25``.

    ``columns`` is what the log's own columns say of the whole of it; ``given`` is what the user says, which goes before
    the path. Raises RecordError if the path contradicts itself or the columns, or lacks what every record needs.
    """
    rules = _CERTIFICATION_RULES if kind == "certification" else _PREDICTION_RULES
    stem, told = stem_of(path.name), dict(given or {})
    fields, unknown = _read_parts([*path.parts[:-1], *_pieces(stem, rules)], rules, told)
    for name, value in (columns or {}).items():
        if fields.setdefault(name, value) != value and name not in told:
            raise RecordError(f"contradictory: {name} is {fields[name]!r} in the path and {value!r} in the log")
    if base_method := fields.pop("base_method", None):
        fields.setdefault("method", base_method)
    notes = [
        f"{name} is {value!r}, not {fields[name]!r} as its path says"
        for name, value in told.items()
        if fields.get(name, value) != value
    ]
    variant, rank = str(told.pop("variant", "/".join(unknown))), fields.pop("rank", None)
    fields |= told
    assumed = []
    if kind == "certification":
        _complete(fields, path)
        assumed = _assume(fields, stem)
    elif "m_test" in fields:
        fields.setdefault("estimator", "smoothed")
    _check(kind, fields)
    return LogPath(fields=fields, variant=variant, rank=rank, assumed=assumed, notes=notes)


def stem_of(name: str) -> str:
    """A file's name without the endings of its storage format."""
    return re.sub(r"(\.(gz|tsv|csv|txt|log|dat|out))+$", "", name, flags=re.IGNORECASE)


def is_named_like_a_log(path: PurePosixPath) -> bool:
    """Whether a file without the header has a name like the published logs, and so should have one."""
    return re.fullmatch(r"sigma_\d+(\.\d+)?|predictions", stem_of(path.name)) is not None


_REQUIRED: dict[LogKind, tuple[str, ...]] = {
    "certification": ("dataset", "split", "sigma_cert"),
    "prediction": ("dataset", "n", "attack", "attack_epsilon", "estimator"),
}


def _complete(fields: Fields, path: PurePosixPath) -> None:
    """Add the parameters that follow from those in a path."""
    if fields.get("method") == "gaussian" and "attack" not in fields:
        fields |= {"attack": "none", "epsilon": 0.0, "m_train": 1, "num_steps": 0}
    elif "attack" in fields:
        if not re.search("multi", str(path), re.IGNORECASE):
            fields.setdefault("m_train", 1)
        if fields.setdefault("method", "smoothadv") == "vanilla" and fields.get("sigma_train", 0.0) > 0:
            fields["method"] = "vanilla_noise"


def _assume(fields: Fields, stem: str) -> list[str]:
    """Fill in the likely values of published code; returns them as messages."""
    assumed = []
    if "sigma_cert" not in fields and "sigma_train" in fields and re.search(r"(^|[_-])noise_?\d", stem):
        fields["sigma_cert"] = fields["sigma_train"]
        assumed.append(f"sigma_cert={fields['sigma_cert']:g} (from {stem})")
    if "split" not in fields:
        fields["split"] = "test"
        assumed.append("split=test")
    return assumed


def _check(kind: LogKind, fields: Fields) -> None:
    missing = [name for name in _REQUIRED[kind] if name not in fields]
    if missing:
        raise RecordError(f"path: does not say {', '.join(missing)}; set it with mapping=FILE")
    unfit = [
        f"{name} is {value}"
        for name, value in fields.items()
        if (isinstance(value, int) and value > MAX_INT32)
        or (isinstance(value, float) and not math.isfinite(value))
        or (name == "sigma_cert" and value <= 0)
    ]
    if unfit:
        raise RecordError(f"path: {', '.join(unfit)}, which no record can hold")


def _pieces(stem: str, rules: tuple[Rule, ...]) -> list[str]:
    """The name of a file as folder names: whole if it matches a rule, else split at parts that match rules."""
    if any(re.fullmatch(pattern, stem) for pattern, _ in rules):
        return [stem]
    known, rest = [], stem
    for pattern in _FILE_PARTS:
        part = re.compile(rf"(?:^|(?<=[_-]))(?:{pattern})(?=[_-]|$)", re.IGNORECASE)
        known += [re.sub(r"^([a-z]+?)_?(?=\d)", r"\1_", text.lower()) for text in part.findall(rest)]
        rest = part.sub("", rest)
    rest = re.sub(r"[_-]{2,}", "_", rest).strip("_-")
    return [*known, *([rest] if rest else [])]


_FILE_PARTS = (r"(?:sigma|noise)_?\d+(?:\.\d+)?", r"(?:rank|part|shard)_?\d+", "train|test", "certify|predictions")


def _read_parts(parts: Sequence[str], rules: tuple[Rule, ...], told: Mapping[str, Any]) -> tuple[Fields, list[str]]:
    """The parameters in some names, and the names without any; only parameters in ``told`` may differ between names."""
    fields: Fields = {}
    unknown: list[str] = []
    for part in parts:
        found, rest = _read_part(part, rules)
        unknown += rest
        for name, value in found.items():
            if fields.setdefault(name, value) != value and name not in told:
                elsewhere = f"{fields[name]!r} elsewhere in the path"
                raise RecordError(f"contradictory: {name} is {elsewhere} and {value!r} in {part!r}")
    return fields, unknown


def _read_part(part: str, rules: tuple[Rule, ...]) -> tuple[Fields, list[str]]:
    for pattern, says in rules:
        if match := re.fullmatch(pattern, part):
            told = {name: text for name, text in match.groupdict().items() if text}
            kept = [told.pop(name).strip("_") for name in ("kept", "kept_too") if name in told]
            return {**says, **{name: _CONVERTED.get(name, str)(text) for name, text in told.items()}}, kept
    return {}, [part]


_CONVERTED: Mapping[str, Callable[[str], Any]] = {
    **dict.fromkeys(("sigma_train", "sigma_cert", "attack_epsilon"), float),
    **dict.fromkeys(("num_steps", "m_train", "m_test", "n", "rank"), int),
    "attack": str.lower,
    "dataset": lambda text: "cifar10" if text == "cifar" else text,
    "epsilon": lambda text: float(text) / 256,  # as the published code does (its README says 255)
}
_NUMBER = r"\d+(?:\.\d+)?"

_COMMON_RULES: tuple[Rule, ...] = (
    (r"data|certify|predict", {}),
    (rf"(?P<dataset>{'|'.join(sorted({'cifar10', 'imagenet', *dataset_names()}))})", {}),
    (r"(?P<architecture>(?:cifar_)?resnet\d+)", {}),
    (r"(?P<split>train|test)", {}),
    (r"(?:rank|part|shard)_?(?P<rank>\d+)", {}),
)

_CERTIFICATION_RULES: tuple[Rule, ...] = (
    *_COMMON_RULES,
    (r"data_cohen", {"method": "gaussian"}),
    # Cohen et al.'s own models, and their replication: recognisable by name, and worth keeping apart. Below the folder
    # of another method this is what that method was added to.
    (r"(?P<kept>cohen|replication)", {"base_method": "gaussian"}),
    (rf"noise_(?P<sigma_train>{_NUMBER})", {}),
    (rf"sigma_(?P<sigma_cert>{_NUMBER})", {}),
    (r"eps_(?P<epsilon>\d+)", {}),
    (r"(?P<m_train>\d+)-multitrain", {}),
    # PGD_2steps, DDN_4steps_multiNoiseSamples, self_training_PGD_2steps, PGD_6steps_30epochs_multinoise.
    (
        r"(?P<kept>self_training_)?(?P<attack>PGD|DDN)_(?P<num_steps>\d+)steps?"
        r"(?:_multiNoiseSamples|_baseAttackExp|(?P<kept_too>(?:_[A-Za-z0-9]+)*))",
        {},
    ),
    # PGD_2steps_baseAttackExp/with_noise: is the smoothed classifier attacked, or the base classifier? The published
    # script draws with_noise as the paper's own method (noise during the attack) and without_noise as vanilla PGD, with
    # noise augmentation where noise_X is above 0.
    (r"(?P<kept>with_noise)", {"method": "smoothadv"}),
    (r"(?P<kept>without_noise)", {"method": "vanilla"}),
    (r"(?P<method>smoothadv|gaussian|smoothmix|cat-?rs|macer|consistency|stability|insta-?rs)", {}),
)

_PREDICTION_RULES: tuple[Rule, ...] = (
    *_COMMON_RULES,
    (r"predict_(?P<dataset>cifar|imagenet)_cohen", {"method": "gaussian"}),
    (r"predict_(?P<dataset>cifar|imagenet)_ours", {"method": "smoothadv"}),
    (r"N(?P<n>\d+)", {}),
    (r"N(?P<n>\d+)_nogradtrick", {"estimator": "gradient_free"}),
    (r"(?P<attack>PGD|DDN)_(?P<attack_epsilon>\d+\.\d+)", {}),
    (r"num_(?P<m_test>\d+)", {}),
    (r"base", {"estimator": "base"}),
    (r"predictions", {}),
)
