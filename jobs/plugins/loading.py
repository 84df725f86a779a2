"""Imports plug-ins from the copy made at the launch, locates their errors, and limits what they print."""

import contextlib
import importlib
import inspect
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from jobs.errors import ConfigError
from jobs.plugins import Plugin, settings
from jobs.plugins.files import packages_in, sha256_of
from jobs.validation import unknown_choice

_root: Path | None = None


def use(root: str | Path | None) -> None:
    """Import plug-ins from this folder from now on, and forget others. Raises ConfigError if it does not exist."""
    global _root
    new = None if root is None else Path(root)
    if new == _root:
        return
    if new is not None and not new.is_dir():
        raise ConfigError(f"plugins: {new} is missing or not visible from this machine; launch again")
    if _root is not None:
        sys.path.remove(str(_root))
        packages = packages_in(_root) if _root.is_dir() else []
        for module in [module for module in sys.modules if module.partition(".")[0] in packages]:
            del sys.modules[module]
    if new is not None:
        sys.path.insert(0, str(new))
        importlib.invalidate_caches()
    _root = new


@contextlib.contextmanager
def errors_of(name: str) -> Iterator[None]:
    """What the code of others raises here becomes a ConfigError with its file and line; settings are put back."""
    with settings.kept():
        try:
            yield
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:
            raise ConfigError(f"{name}: {described(error)}") from error


def load(name: str) -> Any:
    """The class or function that a plug-in's name refers to. Raises ConfigError, on import with file and line."""
    module_name, _, attribute = name.partition(":")
    package, known = module_name.partition(".")[0], _packages()
    if package not in known:
        problem = unknown_choice("plug-in", package, known)
        raise ConfigError(f"{name}: {problem}; list its package or folder in plugins=[PATH]")
    with errors_of(name):
        try:
            with settings.with_fixed_randomness():
                module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and module_name.startswith(error.name):
                raise ConfigError(f"{name}: there is no module {error.name!r} in it") from error
            advice = "install it where the jobs run (cluster.python, cluster.setup), or add it to plugins"
            raise ConfigError(f"{name}: {described(error)}; {advice}") from error
    if not hasattr(module, attribute):
        names = [public for public in vars(module) if not public.startswith("_")]
        near = unknown_choice("name", attribute, [], also_near=names)
        raise ConfigError(f"{name}: {module.__file__} has no such class or function: {near}")
    return getattr(module, attribute)


def library(name: str) -> Any:
    """The models of the library in a name such as ``timm:resnet18``. Raises ConfigError where it is not installed."""
    module = name.partition(":")[0]
    try:
        return importlib.import_module({"torchvision": "torchvision.models"}.get(module, module))
    except ImportError as error:
        hint = f"install it (pip install {module}), or choose another model"
        raise ConfigError(f"{name}: {module} is not installed in this environment; {hint}") from error


def version_of(loaded: Any) -> int:
    """The ``VERSION`` of a class or function, or of its module; 1 if neither has one."""
    module = sys.modules.get(getattr(loaded, "__module__", ""))
    version = getattr(loaded, "VERSION", getattr(module, "VERSION", 1))
    if type(version) is not int or version < 1:
        raise ConfigError(f"{loaded.__module__}: VERSION must be a whole number from 1, got {version!r}")
    return version


def make(plugin: Plugin) -> Any:
    """The objective or perturbation of a plug-in. Raises ConfigError with file and line."""
    loaded = load(plugin.name)
    with errors_of(plugin.name):
        return loaded(**plugin.options)


def hashes(plugins: Iterable[Plugin]) -> dict[str, str]:
    """The present hashes of the imported files of plug-ins, by package."""
    packages = sorted({plugin.package for plugin in plugins if plugin.is_own}.intersection(_packages()))
    return {package: sha256_of(_root, package) for package in packages if _root is not None}


def described(error: BaseException) -> str:
    """An error with the last line of a plug-in's code in its traceback: ``mylab/nets.py:12: ValueError: ...``."""
    text = f"{type(error).__name__}: {error}"
    place, cause = None, cast(BaseException | None, error)
    while place is None and cause is not None:
        place, cause = _own_place(traceback.extract_tb(cause.__traceback__)), cause.__cause__
    if isinstance(error, SyntaxError) and error.filename and is_own(error.filename):
        place = _place(error.filename, error.lineno)
    return text if place is None else f"{place}: {text}"


def place_here() -> str | None:
    """The innermost line of a plug-in's code that is running now, as ``mylab/nets.py:12``."""
    return _own_place(traceback.extract_stack())


def place_of(made: Any) -> str:
    """The location of a class, a function, or an object's ``__call__``: ``mylab.nets:Build (mylab/nets.py:12)``."""
    kind = made if inspect.isclass(made) or inspect.isroutine(made) else type(made)
    name, code = f"{kind.__module__}:{kind.__qualname__}", kind if kind is made else kind.__call__
    try:
        file, line = inspect.getfile(code), inspect.getsourcelines(code)[1]
    except (OSError, TypeError):
        return name
    return f"{name} ({_place(file, line)})"


def is_own(file: str) -> bool:
    return _root is not None and Path(file).is_relative_to(_root)


def _packages() -> list[str]:
    return [] if _root is None else packages_in(_root)


def _own_place(frames: traceback.StackSummary) -> str | None:
    own = [frame for frame in frames if is_own(frame.filename)]
    return _place(own[-1].filename, own[-1].lineno) if own else None


def _place(file: str, line: int | None) -> str:
    return f"{Path(file).relative_to(_root) if _root is not None and is_own(file) else file}:{line}"
