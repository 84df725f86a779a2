"""Published checkpoint files that a grid names: what identifies them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.errors import ConfigError


def sha256_of(path: object) -> str | None:
    """The hash of a published checkpoint; None where there is none.

    Args:
        path: As configured.

    Raises:
        ConfigError: It is no path, or the file cannot be read.
    """
    if path is None:
        return None
    if not isinstance(path, str) or not path:
        raise ConfigError([f"train.checkpoint: write the path of a file, got {path!r}"])
    if Path(path).is_dir():
        raise ConfigError([f"train.checkpoint: {path} is a folder; write the path of the file in it"])
    try:
        status = Path(path).stat()
        return _sha256(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise ConfigError([f"train.checkpoint: cannot read {path} ({error.strerror})"]) from error


def checkpoint_files(blocks: Sequence[Mapping[str, Any]], train: Mapping[str, Any]) -> dict[str, Path]:
    """The files of all published checkpoints that a grid names, by hash."""
    paths: set[str] = set()
    for block in blocks:
        value = {**train, **block}.get("checkpoint")
        paths.update(path for path in (value if isinstance(value, list) else [value]) if path is not None)
    return {str(sha256_of(path)): Path(path) for path in sorted(paths)}


@functools.cache
def _sha256(path: str, mtime_ns: int, size: int) -> str:
    del mtime_ns, size  # a changed file is read again
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
