"""The YAML files of this folder: the commands, their groups, and the options of each group.

They are read as plain YAML, so that ``--help`` does not import Hydra.
"""

from __future__ import annotations

from pathlib import Path

import yaml

CONFIG_DIR = Path(__file__).parent.resolve()


def lines_of(config_name: str) -> list[str]:
    """The lines of a primary configuration; its leading comment is the help text of its command."""
    return (CONFIG_DIR / f"{config_name}.yaml").read_text(encoding="utf-8").splitlines()


def groups_of(config_name: str) -> dict[str, bool]:
    """The groups of a primary configuration, and whether the user must choose an option."""
    defaults = yaml.safe_load("\n".join(lines_of(config_name))).get("defaults", [])
    choices = {str(key): value for entry in defaults if isinstance(entry, dict) for key, value in entry.items()}
    return {group: option == "???" for group, option in choices.items()}


def options_of(group: str) -> list[str]:
    """The options of a group, sorted."""
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))
