"""Command-line arguments as overrides of Hydra."""

import os
import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from jobs.errors import ConfigError, refuse

_PATH = re.compile(
    r"(?P<key>\+{0,2}(results|source|output|mapping|train\.(checkpoint|weights|denoiser_weights)|data\.\w+"
    r"|(certify|attack)\.indices(?==[^[{])|(data|train\.dataset)(?==(npz|folder):)))=(?P<path>.*)",
    re.DOTALL,
)
_QUOTED = re.compile(r"""(['"]).*\1""", re.DOTALL)


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """The overrides of a command line; paths are taken literally.

    Raises ConfigError if some cannot be parsed, are sweeps, or change a setting of Hydra itself.
    """
    problems, parsed = [], []
    for text in map(_as_written, overrides):
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            problems.append(
                f"cannot parse the argument {text!r}; write key=value, with quotes around a list that contains "
                """blanks, and with two pairs of quotes around special characters: key="'value'\""""
            )
            continue
        parsed.append(override)
        if override.is_sweep_override():
            problems.append(
                f"{text}: only one value is possible; write a list as {override.key_or_group}=[a,b], "
                f"""and text with commas as {override.key_or_group}="'a,b'\""""
            )
        elif is_hydras(override) and override.key_or_group != "hydra.searchpath":
            problems.append(f"{text}: hydra.searchpath is the only setting of Hydra that is used here; remove it")
    refuse(problems)
    return parsed


def is_hydras(override: Override) -> bool:
    """Whether an override changes a setting of Hydra itself."""
    return override.key_or_group.startswith("hydra.")


def apply_overrides(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Set, add and delete values of a configuration, in order, as Hydra does when it composes.

    Raises ConfigError if overrides do not fit the configuration.
    """
    problems = []
    for override in overrides:
        try:
            _apply(config, override)
        except ConfigError as error:
            problems += error.problems
        except OmegaConfBaseException as error:
            problems.append(f"{override.input_line}; {first_lines(error)}")
    refuse(problems)


def first_lines(error: Exception) -> str:
    """The message of an error of Hydra or OmegaConf, in one line and without its internals."""
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
        raise ConfigError(f"{override.input_line}: @ is valid for groups only; write key=value")
    if override.is_delete():
        if value is not None and value != present:
            raise ConfigError(f"{override.input_line}: {key} is {present!r}, not {value!r}; write ~{key} to delete it")
        parent, _, name = key.rpartition(".")
        with open_dict(config):
            del (OmegaConf.select(config, parent) if parent else config)[name]
    elif override.is_add() and present is not None and not isinstance(value, dict | list):
        raise ConfigError(f"{override.input_line}: {key} is already set; write {key}=VALUE to change it")
    elif isinstance(present, ListConfig) and isinstance(value, dict):
        raise ConfigError(f"{override.input_line}: {key} is a list; write {key}=[...]")
    else:
        is_new = override.is_add() or override.is_force_add()
        OmegaConf.update(config, key, value, merge=isinstance(value, dict), force_add=is_new)


def _as_written(text: str) -> str:
    """An override with its path quoted, because many characters of paths have a meaning in Hydra's grammar."""
    match = _PATH.fullmatch(text)
    if match is None or match["path"] in ("", "null") or _QUOTED.fullmatch(match["path"]):
        return text
    path = os.path.expanduser(match["path"])  # shells do not expand it after "key.subkey="
    return f"{match['key']}={QuotedString(text=path, quote=Quote.single).with_quotes()}"
