"""Arguments of the command line as Hydra's overrides."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from jobs.errors import ConfigError

_PATH = re.compile(r"(?P<key>\+{0,2}(results|source|output|train\.checkpoint|data\.\w+))=(?P<path>.*)", re.DOTALL)
_QUOTED = re.compile(r"""(['"]).*\1""", re.DOTALL)


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """The overrides of a command line, paths as they are written.

    Raises:
        ConfigError: Some cannot be read, are sweeps, or set what is Hydra's own.
    """
    problems, parsed = [], []
    for text in map(_as_written, overrides):
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            problems.append(
                f"cannot read {text!r} on the command line; write key=value, a list without blanks or in quotes, "
                """and a value with special characters in quotes that the shell leaves alone: key="'value'\""""
            )
            continue
        parsed.append(override)
        if override.is_sweep_override():
            problems.append(
                f"{text}: one value at a time; a list is written {override.key_or_group}=[a,b], "
                f"""a text with commas {override.key_or_group}="'a,b'\""""
            )
        elif is_hydras(override) and override.key_or_group != "hydra.searchpath":
            problems.append(f"{text}: of Hydra's own settings only hydra.searchpath has a meaning here; leave it out")
    if problems:
        raise ConfigError(problems)
    return parsed


def is_hydras(override: Override) -> bool:
    """Whether it is a setting of Hydra itself."""
    return override.key_or_group.startswith("hydra.")


def apply_overrides(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Set, add and delete values in a configuration, in order, as Hydra would when it composes.

    Raises:
        ConfigError: One does not fit what is there.
    """
    problems = []
    for override in overrides:
        try:
            _apply(config, override)
        except ConfigError as error:
            problems += error.problems
        except OmegaConfBaseException as error:
            problems.append(f"{override.input_line}; {first_lines(error)}")
    if problems:
        raise ConfigError(problems)


def first_lines(error: Exception) -> str:
    """What an error of Hydra or OmegaConf says, in one line and without what it knows of itself only."""
    lines = [
        *str(error).partition("\nConfig search path")[0].splitlines()[:20],
        *str(error.__cause__ or "").splitlines()[:1],
    ]
    text = "; ".join(line.strip() for line in lines if line.strip())
    return text.replace("DictConfig", "a mapping").replace("ListConfig", "a list")


def _apply(config: DictConfig, override: Override) -> None:
    key, value = override.key_or_group, override.value()
    present = OmegaConf.select(config, key, throw_on_missing=False)
    if override.package is not None:
        raise ConfigError([f"{override.input_line}: @ has a meaning for groups only; write key=value"])
    if override.is_delete():
        if value is not None and value != present:
            raise ConfigError([f"{override.input_line}: the value of {key} is {present!r}; write ~{key}"])
        parent, _, name = key.rpartition(".")
        with open_dict(config):
            del (OmegaConf.select(config, parent) if parent else config)[name]
    elif override.is_add() and present is not None and not isinstance(value, dict | list):
        raise ConfigError([f"{override.input_line}: {key} is set already; write ++{key}=VALUE to set it anyway"])
    else:
        is_new = override.is_add() or override.is_force_add()
        OmegaConf.update(config, key, value, merge=True, force_add=is_new)


def _as_written(text: str) -> str:
    """An override, a path in it quoted: Hydra's grammar has a use for many a character that paths have."""
    match = _PATH.fullmatch(text)
    if match is None or match["path"] in ("", "null") or _QUOTED.fullmatch(match["path"]):
        return text
    path = os.path.expanduser(match["path"])  # which shells leave alone after "key.subkey="
    return f"{match['key']}={QuotedString(text=path, quote=Quote.single).with_quotes()}"
