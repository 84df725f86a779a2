"""Where a result comes from: package versions and the commit of this code."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path

_PACKAGES = ("torch", "numpy", "scipy", "pyarrow")


@functools.cache
def provenance() -> dict[str, str]:
    """Metadata for result files: ``packages`` as JSON, ``git_commit`` (or unknown)."""
    versions = {"python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"packages": json.dumps(versions, sort_keys=True), "git_commit": git_commit()}


COMMIT_FILE = "COMMIT"
"""In a copy of the code, beside the packages: the commit it was copied from."""


def git_commit() -> str:
    """The commit of this code, with -dirty where files differ from it; unknown outside of git."""
    folder = Path(__file__).parent.parent
    copied_from = folder.parent / COMMIT_FILE
    if copied_from.exists():
        return copied_from.read_text(encoding="utf-8").strip()
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
