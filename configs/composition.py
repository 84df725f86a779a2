"""Hydra's composition of the files in this folder, with errors that name the valid choices.

Only this module knows Hydra and OmegaConf. What comes out is plain Python.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jobs.errors import ConfigError
from jobs.validation import unknown_choice

CONFIG_DIR = Path(__file__).parent.resolve()

_PATH = re.compile(r"(?P<key>results|source|output|data\.\w+)=(?P<path>.*)", re.DOTALL)
_QUOTED = re.compile(r"""(['"]).*\1""", re.DOTALL)


def compose_config(config_name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration that a command line gives.

    Args:
        config_name: The primary configuration, a file in this folder.
        overrides: As on the command line: ``["grid=digits", "certify.n=1000"]``. Paths (results, source,
            output, data.NAME) are taken as they are written.

    Raises:
        ConfigError: It does not compose; names the key or option and the valid ones.
    """
    # Where the primary configuration has no group "grid", grid=NAME names any grid in the results,
    # also one without a file in configs/grid, and Hydra must not take it for a choice of file.
    takes_name = "grid" not in groups_of(config_name)
    names = [text for text in overrides if takes_name and text.startswith("grid=")]
    parsed = _parse([_as_written(text) for text in overrides if text not in names])
    _check_choices(config_name, parsed)
    _check_keys(config_name, parsed)
    config = _compose(config_name, [override.input_line or "" for override in parsed])
    if names:
        config.grid = names[-1].partition("=")[2]
    return _to_plain(config)


def groups_of(config_name: str) -> dict[str, bool]:
    """The groups of a primary configuration, and whether the user must choose an option."""
    primary = OmegaConf.load(CONFIG_DIR / f"{config_name}.yaml")
    assert isinstance(primary, DictConfig)
    defaults = primary.get("defaults", ListConfig([]))
    groups = [(entry, key) for entry in defaults if isinstance(entry, DictConfig) for key in entry]
    return {str(key): OmegaConf.is_missing(entry, key) for entry, key in groups}


def options_of(group: str) -> list[str]:
    """The options of a group, sorted."""
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))


def to_yaml(values: dict[str, Any]) -> str:
    """A composed configuration as YAML text."""
    return OmegaConf.to_yaml(OmegaConf.create(values))


def _as_written(text: str) -> str:
    """An override, a path in it quoted: Hydra's grammar has a use for many a character that paths have."""
    match = _PATH.fullmatch(text)
    if match is None or match["path"] in ("", "null") or _QUOTED.fullmatch(match["path"]):
        return text
    return f"{match['key']}={QuotedString(text=match['path'], quote=Quote.single).with_quotes()}"


def _parse(overrides: Sequence[str]) -> list[Override]:
    problems, parsed = [], []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            problems.append(
                f"cannot read {text!r} on the command line; write key=value, and a value with special characters "
                """in quotes that the shell leaves alone: key="'value'\""""
            )
            continue
        parsed.append(override)
        if override.is_sweep_override():
            problems.append(
                f"{text}: one value at a time; a list is written {override.key_or_group}=[a,b], "
                f"""a text with commas {override.key_or_group}="'a,b'\""""
            )
        elif _is_hydras(override) and override.key_or_group != "hydra.searchpath":
            problems.append(f"{text}: of Hydra's own settings only hydra.searchpath has a meaning here; leave it out")
    if problems:
        raise ConfigError(problems)
    return parsed


def _check_choices(config_name: str, overrides: Sequence[Override]) -> None:
    """Every group that must be chosen is, and every option chosen exists."""
    groups = groups_of(config_name)
    chosen = {override.key_or_group: override.value() for override in overrides if override.key_or_group in groups}
    problems = [
        f"{group} is required; write {group}=NAME; valid: {', '.join(options_of(group))}"
        for group, is_required in groups.items()
        if is_required and group not in chosen
    ]
    if not any(map(_is_hydras, overrides)):  # hydra.searchpath adds options that only Hydra knows
        problems += [
            unknown_choice(group, option, options_of(group))
            for group, option in chosen.items()
            if option not in options_of(group)
        ]
    if problems:
        raise ConfigError(problems)


def _check_keys(config_name: str, overrides: Sequence[Override]) -> None:
    """Every key that is overridden exists (one that is added with + is the entry's to judge)."""
    groups = groups_of(config_name)
    choices = [override for override in overrides if override.key_or_group in groups or _is_hydras(override)]
    chosen = _compose(config_name, [override.input_line or "" for override in choices])
    known = _keys(OmegaConf.to_container(chosen, resolve=False))  # values that are required may still be missing
    problems = []
    for override in overrides:
        key = override.key_or_group
        if override not in choices and not override.is_add() and key not in known:
            parent = key.rpartition(".")[0]
            siblings = [name for name in known if name.rpartition(".")[0] == (parent if parent in known else "")]
            problems.append(unknown_choice("key", key, siblings, also_near=known))
    if problems:
        raise ConfigError(problems)


def _compose(config_name: str, overrides: list[str]) -> DictConfig:
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONFIG_DIR)):
            return compose(config_name=config_name, overrides=overrides)
    except HydraException as error:
        raise ConfigError([_first_lines(error)]) from error


def _to_plain(config: DictConfig) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError([_first_lines(error)]) from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _is_hydras(override: Override) -> bool:
    return override.key_or_group.startswith("hydra.")


def _keys(values: Any, prefix: str = "") -> list[str]:
    if not isinstance(values, dict):
        return []
    keys = []
    for name, value in values.items():
        keys += [f"{prefix}{name}", *_keys(value, f"{prefix}{name}.")]
    return keys


def _first_lines(error: Exception) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines()[:2] if line.strip())
