"""Composes the files in this folder with Hydra; errors name the valid choices.

Only this module and ``overrides`` import Hydra and OmegaConf. The result is plain Python.
"""

import copy
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from configs.files import CONFIG_DIR, groups_of, options_of, own_files
from configs.overrides import apply_overrides, first_lines, is_hydras, parse_overrides
from jobs.errors import ConfigError, refuse
from jobs.specs.attack import AttackSpec
from jobs.specs.certify import CertifySpec
from jobs.specs.train import TrainSpec
from jobs.validation import unknown_choice

# Hydra 1.3 needs this to use its own defaults; 1.4 always does and deprecates the argument.
VERSION_BASE = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}


def compose_config(config_name: str, overrides: Sequence[str], config_dir: Path | None = None) -> dict[str, Any]:
    """The configuration that a command line describes.

    Args:
        config_name: The primary configuration, a file in this folder.
        overrides: As on the command line: ``["grid=digits", "certify.n=1000"]``. Paths are taken literally, except for
            a leading ~/. An option of a group may be the path of a YAML file.
        config_dir: A folder with more options, in folders named like the groups.

    Raises:
        ConfigError: It does not compose. Names the key or option and the valid ones.
    """
    groups = groups_of(config_name)
    grids = [text for text in overrides if text.startswith("grid=")]
    if len(grids) > 1:  # only the last would count, and no one would see it
        raise ConfigError(f"grid is given {len(grids)} times ({', '.join(grids)}); give one")
    with own_files(overrides, groups, config_dir) as (named, folders):
        return _composed(config_name, named, groups, folders)


def _composed(
    config_name: str, overrides: Sequence[str], groups: Mapping[str, bool], folders: Sequence[Path]
) -> dict[str, Any]:
    # If the primary configuration has no group "grid", grid=NAME names a grid in the results. It may have
    # no file in configs/grid, so Hydra must not see it.
    names = [text for text in overrides if "grid" not in groups and text.startswith("grid=")]
    parsed = parse_overrides([text for text in overrides if text not in names])
    _check_choices(groups, parsed, folders)
    values = [override for override in parsed if not _chooses_file(override, groups)]
    choices = [override.input_line or "" for override in parsed if override not in values]
    if folders and not any(map(is_hydras, parsed)):
        choices.append(f"hydra.searchpath={[f'file://{folder.resolve()}' for folder in folders]}")
    config = copy.deepcopy(_compose(config_name, *choices))
    _check_keys(config, groups, parsed, values)
    apply_overrides(config, values)
    if names:
        config.grid = names[-1].partition("=")[2]
    _leave_to_blocks(config)
    return _to_plain(config)


def to_yaml(values: dict[str, Any]) -> str:
    """A composed configuration as YAML text."""
    return OmegaConf.to_yaml(OmegaConf.create(values))


def _chooses_file(override: Override, groups: Mapping[str, bool]) -> bool:
    """Whether Hydra applies it: a choice in a group, an added group, or a setting of Hydra itself."""
    adds_group = override.is_add() and "." not in override.key_or_group
    return override.key_or_group in groups or adds_group or is_hydras(override)


def _check_choices(groups: Mapping[str, bool], overrides: Sequence[Override], folders: Sequence[Path]) -> None:
    """Raise ConfigError unless every required group is chosen and every chosen option exists."""
    chosen = {override.key_or_group: override.value() for override in overrides if override.key_or_group in groups}
    problems = [
        f"{group} is required; write {group}=NAME; valid: {', '.join(options_of(group, folders))}"
        for group, is_required in groups.items()
        if is_required and group not in chosen
    ]
    if not any(map(is_hydras, overrides)):  # hydra.searchpath adds options that only Hydra knows
        problems += [
            unknown_choice(group, option, options_of(group, folders))
            for group, option in chosen.items()
            if option not in options_of(group, folders)
        ]
    refuse(problems)


def _check_keys(
    config: DictConfig, groups: Mapping[str, bool], overrides: Sequence[Override], values: Sequence[Override]
) -> None:
    """Raise ConfigError unless every overridden key exists and has an effect; the command checks keys added with +."""
    if isinstance(config.get("grid"), DictConfig) and "grid" in config.grid:
        raise ConfigError("grid: the first line of its file must be: # @package _global_")
    known = list(_keys(OmegaConf.to_container(config, resolve=False)))  # required values may still be missing
    given = [override.value() for override in values if override.key_or_group == "grid.blocks"]
    idle = dict(_without_effect(overrides, given[-1] if given else _blocks(config)))
    problems = list(idle.values())
    problems += [
        _unknown_key(override, config, known, groups)
        for override in values
        if not override.is_add() and override.key_or_group not in (*known, *idle)
    ]
    refuse(problems)


def _unknown_key(override: Override, config: DictConfig, known: Sequence[str], groups: Mapping[str, bool]) -> str:
    """Why a key cannot be overridden, and what to write instead."""
    key = override.key_or_group
    parent, _, name = key.rpartition(".")
    siblings = OmegaConf.select(config, parent) if parent else None
    if not isinstance(siblings, DictConfig):
        return unknown_choice("key", key, [str(other) for other in config], also_near=known)
    if not siblings and parent in groups:
        others = ", ".join(options_of(parent))
        return f"{key}: the chosen {parent} has no keys; choose another with {parent}=NAME: {others}"
    # The keys that the files of a group may leave out; a checkpoint is given by its path.
    spec = {"train": TrainSpec, "certify": CertifySpec, "attack": AttackSpec}.get(parent)
    names = [field.name for field in fields(spec) if field.default is not MISSING] if spec else []
    optional = [name.removesuffix("_sha256") for name in names]
    if name in optional or not siblings:
        return f"{key} is not in the chosen files; write +{override.input_line} to set it"
    return f"{parent}: {unknown_choice('key', name, list(dict.fromkeys([*map(str, siblings), *optional])))}"


def _without_effect(overrides: Sequence[Override], blocks: object) -> Iterator[tuple[str, str]]:
    """Keys that are set for all models although blocks of the grid override them, each with a message."""
    for override in overrides:
        key = override.key_or_group
        name = "train.architecture" if key == "model" else key
        group, _, axis = name.partition(".")
        if override.is_delete() or (group != "train" and name != "certify.sigma_cert"):
            continue
        setting = [f"grid.blocks[{nr}]" for nr, block in enumerate(_sequence(blocks)) if axis in block]
        if setting:
            yield (
                key,
                f"{override.input_line} has no effect, because blocks of the grid set {axis} ({', '.join(setting)}); "
                f'change {axis} in your own grid file, or with "grid.blocks=[...]"',
            )


def _leave_to_blocks(config: DictConfig) -> None:
    """Required values of train may be missing if every block of the grid sets them."""
    blocks = _blocks(config)
    if blocks and isinstance(config.train, DictConfig):
        for key in list(config.train):
            if OmegaConf.is_missing(config.train, key) and all(key in block for block in _sequence(blocks)):
                config.train[key] = None


def _blocks(config: DictConfig) -> object:
    grid = config.get("grid")
    return grid.get("blocks") if isinstance(grid, DictConfig) else None


def _sequence(blocks: object) -> list[Mapping[str, object]]:
    """The blocks of a grid, an empty one in place of anything that is not a mapping; the command checks those."""
    if not isinstance(blocks, Sequence) or isinstance(blocks, str):
        return []
    return [block if isinstance(block, Mapping) else {} for block in blocks]


@functools.lru_cache(maxsize=64)
def _compose(config_name: str, *choices: str) -> DictConfig:
    """The chosen files as Hydra composes them. The result is shared: copy it before changing it."""
    try:
        with initialize_config_dir(config_dir=str(CONFIG_DIR), **VERSION_BASE):
            return compose(config_name=config_name, overrides=list(choices))
    except HydraException as error:
        raise ConfigError(first_lines(error)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"a configuration file is not valid YAML: {' '.join(str(error).split())}") from error


def _to_plain(config: DictConfig) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key}: a value is required; write {error.full_key}=VALUE") from error
    except OmegaConfBaseException as error:
        raise ConfigError(first_lines(error)) from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _keys(values: Any, prefix: str = "") -> Iterator[str]:
    for name, value in values.items() if isinstance(values, dict) else ():
        yield f"{prefix}{name}"
        yield from _keys(value, f"{prefix}{name}.")
