"""Arguments of the command line as Hydra's overrides."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

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


def _as_written(text: str) -> str:
    """An override, a path in it quoted: Hydra's grammar has a use for many a character that paths have."""
    match = _PATH.fullmatch(text)
    if match is None or match["path"] in ("", "null") or _QUOTED.fullmatch(match["path"]):
        return text
    path = os.path.expanduser(match["path"])  # which shells leave alone after "key.subkey="
    return f"{match['key']}={QuotedString(text=path, quote=Quote.single).with_quotes()}"
