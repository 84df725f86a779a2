"""A copy of this package's code under the results, so that a job runs what was submitted.

The folder is named by a hash of its content: launches of the same code share one copy, if they are of one user.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from jobs.files.folders import is_own, only_owner_writes
from jobs.files.provenance import COMMIT_FILE, git_commit
from jobs.files.store import Store

_PACKAGES = ("analysis", "configs", "jobs", "pipeline", "smoothing")
_SUFFIXES = {".py", ".yaml", ".csv", ".html", ".js"}


def take_snapshot(store: Store) -> Path:
    """Copy the code of the running package, unless the same was copied before; its folder."""
    root, commit = Path(__file__).resolve().parents[2], git_commit()
    contents = {str(path.relative_to(root)): path.read_bytes() for path in _files(root)}
    digest = hashlib.sha256(commit.encode())
    for name, content in sorted(contents.items()):
        digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
    target = store.code_dir(digest.hexdigest()[:16])
    if target.exists() and not is_own(target):  # another user's, who may change it
        target = target.with_name(f"{target.name}-{os.getuid()}")
    if target.exists():
        return target
    temporary = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
    try:
        for name, content in contents.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (temporary / COMMIT_FILE).write_text(commit + "\n", encoding="utf-8")
        only_owner_writes(temporary, *temporary.rglob("*"))
        _take_place(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _files(root: Path) -> Iterator[Path]:
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in _SUFFIXES and path.is_file():
                yield path


def _take_place(temporary: Path, target: Path) -> None:
    try:
        os.rename(temporary, target)
    except OSError:
        if not target.exists():  # else another launch was first, with the same content
            raise
