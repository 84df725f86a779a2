"""The weight files that a grid names, and their hashes."""

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jobs.atomic import file_sha256
from jobs.errors import ConfigError
from jobs.files.store import Store

FILE_AXES = ("weights", "checkpoint")
"""The keys of a block that name a weight file; checkpoint is the older one."""

DENOISER_AXIS = "denoiser_weights"


def weights_file(values: Mapping[str, Any], results: Path) -> object:
    """The file that a model names as ``checkpoint`` or ``weights``, if any; ``run:TRAIN_KEY`` names a finished run.

    Raises ConfigError if both are given, or there is no such run.
    """
    given = [values[name] for name in FILE_AXES if values.get(name) is not None]
    if len(given) > 1:
        raise ConfigError(f"train.weights and train.checkpoint: give only one ({given[0]} or {given[1]})")
    if not given or not isinstance(given[0], str) or not given[0].startswith("run:"):
        return given[0] if given else None
    path = Store(results).checkpoint_path(given[0].removeprefix("run:"))
    if not path.exists():
        raise ConfigError(f"train.weights={given[0]}: {path} does not exist; finish training that run first")
    return str(path)


def sha256_of(path: object, option: str = "checkpoint") -> str | None:
    """The hash of the weight file that an option names, if any; raises ConfigError if it cannot be read."""
    if path is None:
        return None
    if not isinstance(path, str) or not path:
        raise ConfigError(f"train.{option}: write the path of a file, got {path!r}")
    if Path(path).is_dir():
        raise ConfigError(f"train.{option}: {path} is a folder; write the path of the file in it")
    try:
        status = Path(path).stat()
        return _sha256(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise ConfigError(f"train.{option}: cannot read {path} ({error.strerror})") from error


def checkpoint_files(models: Iterable[Mapping[str, Any]], results: Path) -> dict[str, Path]:
    """All weight files that the models of a grid name, by their hashes."""
    named = [path for values in models for path in (weights_file(values, results), values.get(DENOISER_AXIS))]
    paths = {str(path) for path in named if path is not None}
    return {str(sha256_of(path)): Path(path) for path in sorted(paths)}


@functools.cache
def _sha256(path: str, mtime_ns: int, size: int) -> str:
    del mtime_ns, size  # a changed file is read again
    return file_sha256(Path(path))
