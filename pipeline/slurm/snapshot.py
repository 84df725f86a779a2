"""A copy of this package's code under the results, so that a job runs what was submitted.

The folder is named by a hash of its content: launches of the same code share one copy, if they are of one user.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jobs.files.code import PACKAGES, keep_copy
from jobs.files.provenance import COMMIT_FILE, git_commit
from jobs.files.store import Store

_SUFFIXES = {".py", ".yaml", ".csv", ".html", ".js"}


def take_snapshot(store: Store) -> Path:
    """Copy the code of the running package, unless the same was copied before; its folder."""
    root, commit = Path(__file__).resolve().parents[2], git_commit()
    contents = {str(path.relative_to(root)): path.read_bytes() for path in _files(root)}
    return keep_copy(store, {**contents, COMMIT_FILE: f"{commit}\n".encode()})


def _files(root: Path) -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in _SUFFIXES and path.is_file():
                yield path
