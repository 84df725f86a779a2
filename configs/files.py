"""The YAML files of this folder, and a user's own: commands, their groups, and the options of each group.

They are read as plain YAML, so that ``--help`` does not import Hydra.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from jobs.atomic import temporary_folder
from jobs.errors import refuse

CONFIG_DIR = Path(__file__).parent.resolve()


def lines_of(config_name: str) -> list[str]:
    """The lines of a primary configuration; its leading comment is the help text of its command."""
    return (CONFIG_DIR / f"{config_name}.yaml").read_text(encoding="utf-8").splitlines()


def groups_of(config_name: str) -> dict[str, bool]:
    """The groups of a primary configuration, and whether the user must choose an option."""
    defaults = yaml.safe_load("\n".join(lines_of(config_name))).get("defaults", [])
    choices = {str(key): value for entry in defaults if isinstance(entry, dict) for key, value in entry.items()}
    return {group: option == "???" for group, option in choices.items()}


def options_of(group: str, folders: Sequence[Path] = ()) -> list[str]:
    """The options of a group in this package and in the user's folders, sorted."""
    return sorted({path.stem for folder in (CONFIG_DIR, *folders) for path in (folder / group).glob("*.yaml")})


@contextlib.contextmanager
def own_files(
    overrides: Sequence[str], groups: Mapping[str, bool], config_dir: Path | None
) -> Iterator[tuple[list[str], list[Path]]]:
    """The command line with names in place of paths, and the folders in which Hydra finds these names.

    ``grid=PATH/mine.yaml`` becomes an option in a folder that exists within this context, and ``model=module:function``
    the architecture of that name. Raises ConfigError with all files and folders that do not exist.
    """
    problems = list(_folder_problems(config_dir, groups))
    with temporary_folder() as own:
        named = []
        for text in overrides:
            group, _, value = text.partition("=")
            if group in groups and value.endswith((".yaml", ".yml")):
                path = Path(value).expanduser()
                problems += [] if path.is_file() else [f"{text}: no such file"]
                folder = own / group
                folder.mkdir(exist_ok=True)
                (folder / f"own-{path.stem}.yaml").symlink_to(path.resolve())
                named.append(f"{group}=own-{path.stem}")
            elif group == "model" and ":" in value and group in groups:
                named.append(f"train.architecture='{value}'")
            else:
                named.append(text)
        refuse(problems)
        yield named, [folder for folder in (own, config_dir) if folder is not None and any(folder.iterdir())]


def _folder_problems(config_dir: Path | None, groups: Mapping[str, bool]) -> Iterator[str]:
    if config_dir is None:
        return
    if not config_dir.is_dir():
        yield f"--config-dir: {config_dir} is not a folder"
    for group in groups:
        for path in (config_dir / group).glob("*.yaml"):
            if path.stem in options_of(group):
                yield f"--config-dir: a {group} named {path.stem} already exists in this package; rename {path}"
