"""Finds the files of plug-ins and copies them, so that jobs run what was launched."""

import hashlib
import importlib.machinery
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jobs.errors import ConfigError, refuse
from jobs.validation import unknown_choice

PACKAGES = ("analysis", "configs", "jobs", "pipeline", "smoothing")
"""The packages of this project."""

_ROOT = Path(__file__).resolve().parents[2]

MAX_MB = 16
"""Code is small, so a larger folder was not meant."""


def read_plugins(entries: Sequence[str]) -> dict[str, bytes]:
    """The content of all files of some plug-ins, by their path in a folder from which they are imported.

    Each of the entries is a package or module by its name, as Python finds it from the current folder on; or the path
    of a package's folder, of a module's file, or of a folder of packages and modules.

    Raises ConfigError with all problems: nothing found, a name that is in use, too large.
    """
    problems, found = list[str](), dict[str, Path]()
    for entry in entries:
        try:
            for name, path in _members(entry):
                problems += _name_problems(name, path, found)
                found[name] = path
        except ConfigError as error:
            problems += error.problems
    refuse(problems)
    contents: dict[str, bytes] = {}
    for path in found.values():
        for file in [path] if path.is_file() else _files(path):
            contents[str(file.relative_to(path.parent))] = file.read_bytes()
            if sum(map(len, contents.values())) > MAX_MB * 2**20:
                problem = f"plugins: {path} holds more than {MAX_MB} MB"
                raise ConfigError(f"{problem}; name a package that contains only code")
    return contents


def write_files(contents: Mapping[str, bytes], folder: Path) -> None:
    """Create a folder and write files, by their paths in it."""
    folder.mkdir(parents=True)
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def sha256_of(root: Path, package: str) -> str:
    """A hash of the files of one package or module among copied plug-ins."""
    folder, digest = root / package, hashlib.sha256()
    for file in _files(folder) if folder.is_dir() else [root / f"{package}.py"]:
        content = file.read_bytes()
        digest.update(f"{file.relative_to(root)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def packages_in(root: Path) -> list[str]:
    """The packages and modules among copied plug-ins, sorted."""
    return sorted(name for name, _ in _children(root))


def _members(entry: str) -> Iterator[tuple[str, Path]]:
    # A path from here, or from the folder of our packages: grids of this package name examples there.
    places = (Path(entry).expanduser(), *([_ROOT / entry] if "/" in entry else []))
    path = next((place for place in places if place.exists()), places[0])
    if path.is_dir() and not _is_package(path):
        members = list(_children(path))
        if not members:
            raise ConfigError(f"plugins: {entry} holds neither a package (a folder with __init__.py) nor a module")
        yield from members
    elif path.is_dir() or (path.is_file() and path.suffix == ".py"):
        yield path.stem, path.resolve()
    else:
        spec = importlib.machinery.PathFinder.find_spec(entry, ["", *sys.path]) if entry.isidentifier() else None
        if spec is None or spec.origin is None:
            problem = unknown_choice("package or folder", entry, [], also_near=_acceptable())
            hint = "write the path of a folder, or the name of a package that Python finds from here"
            raise ConfigError(f"plugins: {problem}; {hint}")
        origin = Path(spec.origin)
        yield entry, origin.parent if origin.name == "__init__.py" else origin


def _acceptable() -> list[str]:
    """Possible names: packages and modules here or on PYTHONPATH, and folders of them here."""

    def usable(folder: Path) -> list[str]:
        if not (os.access(folder, os.R_OK | os.X_OK) and folder.is_dir()):
            return []
        return [name for name, path in _children(folder) if not [*_name_problems(name, path, {})]]

    places = [Path(), *map(Path, filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))]
    named = [name for place in places for name in usable(place)]
    return [*named, *(path.name for path in Path().iterdir() if not _is_package(path) and usable(path))]


def _children(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.resolve().iterdir()):
        if path.stem.isidentifier() and (_is_package(path) or (path.is_file() and path.suffix == ".py")):
            yield path.stem, path


def _is_package(path: Path) -> bool:
    return (path / "__init__.py").is_file()


def _files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part == "__pycache__" or part.startswith(".") for part in path.parts[-8:])
    )


def _name_problems(name: str, path: Path, others: Mapping[str, Path]) -> Iterator[str]:
    """Problems with the name of a plug-in, which comes first on the path and must not hide another module."""
    if others.get(name, path) != path:
        yield f"plugins: {name} is both {others[name]} and {path}; rename one"
    spec = importlib.machinery.PathFinder.find_spec(name, [place for place in sys.path if place])
    origin = Path(spec.origin).resolve() if spec is not None and spec.origin else None
    is_itself = origin is None or origin in (path, path / "__init__.py")
    if name in PACKAGES or name in sys.stdlib_module_names or not is_itself:
        yield f"plugins: {path} has the name of {origin or 'a module of Python'}, which is imported here; rename it"
