"""Writes files that are either complete or absent, whatever is killed at any moment."""

import contextlib
import errno
import functools
import hashlib
import json
import logging
import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jobs.errors import DiskFullError, RecordError

NO_ROOM = 1 << 20
"""A disk with fewer bytes free is full."""

STALE_AFTER_S = 3600.0
"""A temporary file this old belongs to a killed writer, since no write takes that long."""


def write_atomically(
    path: Path, write: Callable[[Path], object], check: Callable[[Path], object] | None = None, *, replace: bool = True
) -> None:
    """Make a file, and its folder, so that it appears complete and checked, or not at all.

    ``write`` puts the content under a unique temporary name in the same folder. It goes to the disk, ``check`` reads it
    back and raises if it is not right, and only then it takes its place. Two writers at once are harmless: the last
    one's file stays, and with ``replace=False`` the first one's. Raises DiskFullError if there is no room.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        write(temporary)
        _flush_to_disk(temporary)
        if check is not None:
            check(temporary)
        if replace:
            os.replace(temporary, path)
        else:
            _link_unless_there(temporary, path)
        _flush_to_disk(path.parent)
    except Exception as error:
        if not _is_for_want_of_room(error, path.parent):
            raise
        problem = f"the disk or quota is full; {path.name} was not written; free space in"
        raise DiskFullError(errno.ENOSPC, problem, str(path.parent)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str, check: Callable[[Path], object] | None = None) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"), check)


def _is_for_want_of_room(error: Exception, folder: Path) -> bool:
    """Whether an error is due to a full disk; torch's writer raises its own error, which does not say so."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
    return isinstance(error, RuntimeError) and shutil.disk_usage(folder).free < NO_ROOM


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, indented and with sorted keys."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n", read_json)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@contextlib.contextmanager
def reading_json(path: Path, version: int, what: str, step: str) -> Iterator[Any]:
    """The content of a JSON file of this format; an error in the block, which reads it, becomes a RecordError."""
    try:
        content = read_json(path)
        if (found := content["format"]) != version:
            raise RecordError(f"{path}: format {found}, but this version reads {version}; {step}")
        yield content
    except RecordError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{path}: not {what} ({error}); {step}") from error


def listing(folder: Path) -> list[str]:
    """The names in a folder; empty if it does not exist or was removed."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def set_aside(path: Path) -> Path:
    """Rename a file that cannot be used, so that it is neither lost nor counted as done, to NAME.rejected-N."""
    for number in range(1, 10_000):
        target = path.with_name(f"{path.name}.rejected-{number}")
        if not target.exists():
            with contextlib.suppress(FileNotFoundError):  # another worker has already renamed it
                path.rename(target)
            return target
    raise RuntimeError(f"{path} was set aside 9999 times; find out what breaks it, then remove the copies")


class Damage(NamedTuple):
    """A damaged file and what is wrong with it; a path of None if the problem is not in a single file."""

    path: Path | None
    problem: str


NOT_THERE = "not there"
_TAIL = 22  # bytes: the longest of the ends below


def problem_of(path: Path) -> str | None:
    """What is wrong with a file, by a stat and, the first time, its last bytes; None if it is whole.

    Parquet files, zip files (torch's) and our JSON files are written from front to back, and each has its own end.
    """
    try:
        status = path.stat()
        return _problem_of(str(path), status.st_size, status.st_mtime_ns)
    except (FileNotFoundError, NotADirectoryError):
        return NOT_THERE


def damage_of(path: Path) -> list[Damage]:
    """The problem that ``problem_of`` finds in a file, if it exists and has one."""
    problem = problem_of(path)
    return [] if problem is None or problem == NOT_THERE else [Damage(path, problem)]


@functools.lru_cache(maxsize=1 << 18)  # status watches
def _problem_of(path: str, size: int, mtime_ns: int) -> str | None:
    del mtime_ns
    if not size:
        return "empty"
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size  # a network file system may have told an earlier one
        tail = os.pread(descriptor, _TAIL, max(0, size - _TAIL))
    finally:
        os.close(descriptor)
    # The length of the footer and the mark of the format; the record of a zip file's end; the end of an object.
    is_whole = {
        ".parquet": tail[-4:] == b"PAR1" and int.from_bytes(tail[-8:-4], "little") + 12 <= size,
        ".pt": tail[:4] == b"PK\5\6",
        ".json": tail.rstrip().endswith(b"}"),
    }
    return None if is_whole.get(os.path.splitext(path)[1], True) else "truncated or overwritten"


def file_sha256(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_temporary_folders: set[str] = set()


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder outside the results for the time of a block; ``remove_temporary_folders`` knows it."""
    with tempfile.TemporaryDirectory(prefix="smoothadv-") as name:
        _temporary_folders.add(name)
        try:
            yield Path(name)
        finally:
            _temporary_folders.discard(name)


def remove_temporary_folders() -> None:
    """Remove those of blocks that have not ended, for a process that ends without leaving them."""
    for name in [*_temporary_folders]:
        shutil.rmtree(name, ignore_errors=True)


def remove_stale_temporaries(folder: Path) -> None:
    """Remove what killed writers left in a folder."""
    for leftover in folder.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # another worker may remove it at the same time
            if time.time() - leftover.stat().st_mtime > STALE_AFTER_S:
                leftover.unlink()


def _link_unless_there(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        problem = problem_of(path)
        if problem is None:
            logging.info("another process finished first; keeping its file: %s", path)
            return
        # A lost node or a full disk may leave a damaged file, which does not count.
        logging.warning("%s: %s; moved to %s", path, problem, set_aside(path).name)
        os.replace(temporary, path)
    except OSError:  # a file system without hard links
        if not path.exists():
            os.replace(temporary, path)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
