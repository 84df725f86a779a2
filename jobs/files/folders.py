"""Checks and permissions of folders that commands write to."""

import errno
import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jobs.errors import ConfigError


def check_writable(folder: Path, option: str, *, subfolders: Sequence[str] = (), touch: bool = True) -> None:
    """Make a folder, which the user names by an option (results, output), or raise ConfigError.

    Writes to it and to subfolders that exist; ``touch=False`` writes nothing and looks at permissions alone.
    """
    try:
        if not touch:
            there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
            if not there.is_dir():
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if not os.access(there, os.W_OK | os.X_OK):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            return
        folder.mkdir(parents=True, exist_ok=True)
        for place in (folder, *(folder / name for name in subfolders)):
            if place.exists():
                with tempfile.TemporaryFile(dir=place, buffering=0) as file:
                    file.write(bytes(1 << 16))  # on a full disk, files can be created but not filled
    except OSError as error:
        raise ConfigError(
            f"{option}: cannot write to {folder} ({error.strerror}); choose another folder with {option}=PATH"
        ) from error


def only_owner_writes(*paths: Path) -> None:
    """Remove write permission for everyone except the owner, whatever the umask."""
    for path in paths:
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o022)


def is_own(path: Path) -> bool:
    """Whether a path belongs to this user and nobody else can write to it."""
    status = path.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022
