"""The YAML files of this folder: what the commands and their groups can be configured with.

Reads them as plain YAML, so that ``--help`` need not wait for Hydra.
"""

from __future__ import annotations

from pathlib import Path

import yaml

CONFIG_DIR = Path(__file__).parent.resolve()


def lines_of(config_name: str) -> list[str]:
    """The lines of a primary configuration; the comment that heads it is the help text of its command."""
    return (CONFIG_DIR / f"{config_name}.yaml").read_text(encoding="utf-8").splitlines()


def groups_of(config_name: str) -> dict[str, bool]:
    """The groups of a primary configuration, and whether the user must choose an option."""
    defaults = yaml.safe_load("\n".join(lines_of(config_name))).get("defaults", [])
    choices = {str(key): value for entry in defaults if isinstance(entry, dict) for key, value in entry.items()}
    return {group: option == "???" for group, option in choices.items()}


def options_of(group: str) -> list[str]:
    """The options of a group, sorted."""
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))
