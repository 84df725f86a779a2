"""Copies of code below the results, named by their content: jobs run what was launched."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from jobs.files.folders import is_own, only_owner_writes
from jobs.files.store import Store


def keep_copy(store: Store, contents: Mapping[str, bytes]) -> Path:
    """The folder that holds just these files, by their path in it; launches of the same content share it."""
    digest = hashlib.sha256()
    for name, content in sorted(contents.items()):
        digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
    target = store.code_dir(digest.hexdigest()[:16])
    if target.exists() and not is_own(target):  # another user's, who may change it
        target = target.with_name(f"{target.name}-{os.getuid()}")
    if target.exists():
        return target
    temporary = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
    try:
        write_files(contents, temporary)
        only_owner_writes(temporary, *temporary.rglob("*"))
        os.rename(temporary, target)
    except OSError:
        if not target.exists():  # else another launch was first, with the same content
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def write_files(contents: Mapping[str, bytes], folder: Path) -> None:
    """Write files, by their path in a folder that is made here."""
    folder.mkdir(parents=True)
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
