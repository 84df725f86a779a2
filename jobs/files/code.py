"""The code that produces results: jobs run a copy of it, and results name its version."""

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from jobs.files.folders import is_own, only_owner_writes
from jobs.files.store import Store
from jobs.plugins.files import write_files

COMMIT_FILE = "COMMIT"
"""The file in a copy of the code that names the commit."""


def keep_copy(store: Store, contents: Mapping[str, bytes]) -> Path:
    """The folder with exactly these files, by their paths in it; launches of the same content share it."""
    digest = hashlib.sha256()
    for name, content in sorted(contents.items()):
        digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
    target = store.code_dir(digest.hexdigest()[:16])
    if target.exists() and not is_own(target):  # it belongs to another user, who may change it
        target = target.with_name(f"{target.name}-{os.getuid()}")
    if target.exists():
        return target
    temporary = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
    try:
        write_files(contents, temporary)
        only_owner_writes(temporary, *temporary.rglob("*"))
        os.rename(temporary, target)
    except OSError:
        if not target.exists():  # otherwise another launch made it first, with the same content
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


@functools.cache
def provenance() -> dict[str, str]:
    """Metadata for result files: ``packages`` as JSON, ``git_commit`` (or unknown)."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "numpy", "scipy", "pyarrow")}
    versions["python"] = platform.python_version()
    return {"packages": json.dumps(versions, sort_keys=True), "git_commit": git_commit()}


def git_commit() -> str:
    """The commit of this code, with -dirty if files differ from it; unknown outside git."""
    folder = Path(__file__).parent.parent
    copied_from = folder.parent / COMMIT_FILE
    if copied_from.exists():
        return copied_from.read_text(encoding="utf-8").strip()
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
