"""Hydra's composition of the files in this folder, with errors that name the valid choices.

Only this module and ``overrides`` know Hydra and OmegaConf. What comes out is plain Python.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from configs.files import CONFIG_DIR, groups_of, options_of
from configs.overrides import apply_overrides, first_lines, is_hydras, parse_overrides
from jobs.errors import ConfigError
from jobs.validation import unknown_choice


def compose_config(config_name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration that a command line gives.

    Args:
        config_name: The primary configuration, a file in this folder.
        overrides: As on the command line: ``["grid=digits", "certify.n=1000"]``. Paths (results, source,
            output, train.checkpoint, data.NAME) are taken as they are written, but for a ~/ at their beginning.

    Raises:
        ConfigError: It does not compose; names the key or option and the valid ones.
    """
    # Where the primary configuration has no group "grid", grid=NAME names any grid in the results,
    # also one without a file in configs/grid, and Hydra must not take it for a choice of file.
    groups = groups_of(config_name)
    names = [text for text in overrides if "grid" not in groups and text.startswith("grid=")]
    parsed = parse_overrides([text for text in overrides if text not in names])
    _check_choices(groups, parsed)
    values = [override for override in parsed if not _chooses_file(override, groups)]
    choices = [override.input_line or "" for override in parsed if override not in values]
    config = copy.deepcopy(_compose(config_name, *choices))
    _check_keys(config, parsed, values)
    apply_overrides(config, values)
    if names:
        config.grid = names[-1].partition("=")[2]
    _leave_to_blocks(config)
    return _to_plain(config)


def to_yaml(values: dict[str, Any]) -> str:
    """A composed configuration as YAML text."""
    return OmegaConf.to_yaml(OmegaConf.create(values))


def _chooses_file(override: Override, groups: Mapping[str, bool]) -> bool:
    """Whether it is Hydra's to apply: a choice of a group, also of one that is added, or a setting of Hydra."""
    adds_group = override.is_add() and "." not in override.key_or_group
    return override.key_or_group in groups or adds_group or is_hydras(override)


def _check_choices(groups: Mapping[str, bool], overrides: Sequence[Override]) -> None:
    """Every group that must be chosen is, and every option chosen exists."""
    chosen = {override.key_or_group: override.value() for override in overrides if override.key_or_group in groups}
    problems = [
        f"{group} is required; write {group}=NAME; valid: {', '.join(options_of(group))}"
        for group, is_required in groups.items()
        if is_required and group not in chosen
    ]
    if not any(map(is_hydras, overrides)):  # hydra.searchpath adds options that only Hydra knows
        problems += [
            unknown_choice(group, option, options_of(group))
            for group, option in chosen.items()
            if option not in options_of(group)
        ]
    if problems:
        raise ConfigError(problems)


def _check_keys(config: DictConfig, overrides: Sequence[Override], values: Sequence[Override]) -> None:
    """Every key whose value is overridden exists (one added with + is the entry's to judge) and has an effect."""
    if isinstance(config.get("grid"), DictConfig) and "grid" in config.grid:
        raise ConfigError(["grid: the first line of its file must be: # @package _global_"])
    known = _keys(OmegaConf.to_container(config, resolve=False))  # values that are required may still be missing
    given = [override.value() for override in values if override.key_or_group == "grid.blocks"]
    idle = dict(_without_effect(overrides, given[-1] if given else _blocks(config)))
    problems = list(idle.values())
    for override in values:
        key = override.key_or_group
        if not override.is_add() and key not in known and key not in idle:
            parent = key.rpartition(".")[0]
            siblings = [name for name in known if name.rpartition(".")[0] == (parent if parent in known else "")]
            problem = unknown_choice("key", key, siblings, also_near=known)
            adding = f"; one with a default that is not listed is added by +{override.input_line}"
            problems.append(problem + (adding if parent in ("train", "certify") else ""))
    if problems:
        raise ConfigError(problems)


def _without_effect(overrides: Sequence[Override], blocks: object) -> Iterator[tuple[str, str]]:
    """What is set for all models though blocks of the grid set it for theirs, by key, with the reason to refuse it."""
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
                f"{override.input_line}: blocks that set {axis} themselves go before it ({', '.join(setting)}); "
                f'set {axis} there: in a grid file of your own, or with "grid.blocks=[...]"',
            )


def _leave_to_blocks(config: DictConfig) -> None:
    """Values that train requires are not missing where every block of the grid has its own."""
    blocks = _blocks(config)
    if blocks and isinstance(config.train, DictConfig):
        for key in list(config.train):
            if OmegaConf.is_missing(config.train, key) and all(key in block for block in _sequence(blocks)):
                config.train[key] = None


def _blocks(config: DictConfig) -> object:
    grid = config.get("grid")
    return grid.get("blocks") if isinstance(grid, DictConfig) else None


def _sequence(blocks: object) -> list[Mapping[str, object]]:
    """The blocks of a grid; whatever is none stands for an empty one, and is the entry's to judge."""
    if not isinstance(blocks, Sequence) or isinstance(blocks, str):
        return []
    return [block if isinstance(block, Mapping) else {} for block in blocks]


@functools.cache
def _compose(config_name: str, *choices: str) -> DictConfig:
    """The chosen files as Hydra puts them together; shared, so copy it before changing it."""
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONFIG_DIR)):
            return compose(config_name=config_name, overrides=list(choices))
    except HydraException as error:
        raise ConfigError([first_lines(error)]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError([f"a configuration file is no sound YAML: {' '.join(str(error).split())}"]) from error


def _to_plain(config: DictConfig) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ConfigError([f"{error.full_key}: a value is required; write {error.full_key}=VALUE"]) from error
    except OmegaConfBaseException as error:
        raise ConfigError([first_lines(error)]) from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _keys(values: Any, prefix: str = "") -> list[str]:
    if not isinstance(values, dict):
        return []
    keys = []
    for name, value in values.items():
        keys += [f"{prefix}{name}", *_keys(value, f"{prefix}{name}.")]
    return keys
