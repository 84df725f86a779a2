"""The files of a published grid, which is a separate results folder, and their checksums."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from jobs.atomic import file_sha256
from jobs.errors import RecordError
from jobs.files.store import Store
from jobs.plugins.isolated import ask
from jobs.specs.runs import Manifest

_HEAD = b"# sha256 of the lines below: "  # sha256sum skips it


def record_paths(manifest: Manifest, store: Store) -> Iterator[Path]:
    """The files that are identical in a results folder and in its publication; those of the grid come last."""
    for run in {run.place: run for run in manifest.runs}.values():
        yield from (store.shard_path(run.place, indices) for indices in store.finished_shards(run.place))
    for key in manifest.models:
        yield from (path for path in (store.spec_path(key), store.epochs_path(key)) if path.exists())
    yield from (store.records_path(manifest.grid, stage) for stage in sorted({run.stage for run in manifest.runs}))
    yield store.manifest_path(manifest.grid)


def exchange_weights(action: Literal["export", "import"], source: Store, target: Store, manifest: Manifest) -> None:
    """Write checkpoints as .safetensors, or back, in a process with torch. Raises RecordError with all problems."""
    question = [[action, str(source.root), str(target.root), key] for key in manifest.models]
    if problems := ask("jobs.networks.exchange", {}, question, limit_s=None):
        raise RecordError("\n".join([f"the weights of grid {manifest.grid} could not be {action}ed:", *problems]))


def write_checksums(store: Store) -> None:
    """Write SHA256SUMS of everything in a folder, in the form that ``sha256sum --check`` reads."""
    paths = sorted(path for path in store.root.rglob("*") if path.is_file())
    lines = b"".join(
        b"%s  %s\n" % (file_sha256(path).encode(), os.fsencode(path.relative_to(store.root))) for path in paths
    )
    store.checksums_path().write_bytes(_HEAD + hashlib.sha256(lines).hexdigest().encode() + b"\n" + lines)


def check_checksums(store: Store) -> set[Path]:
    """The files in SHA256SUMS, as they are listed. Raises RecordError with every damaged or missing file."""
    head, _, lines = store.checksums_path().read_bytes().partition(b"\n")
    if head != _HEAD + hashlib.sha256(lines).hexdigest().encode():
        raise RecordError(f"{store.checksums_path()}: damaged; download this publication again")
    listed = {store.root / os.fsdecode(line[66:]): line[:64] for line in lines.splitlines()}
    problems = [f"{path}: missing" for path in listed if not path.is_file()]
    problems += [
        f"{path}: damaged: its sha256 differs from that in {store.checksums_path().name}"
        for path, sha256 in listed.items()
        if path.is_file() and file_sha256(path).encode() != sha256
    ]
    if problems:
        raise RecordError("\n".join([*problems, "nothing was imported; download these files again"]))
    return set(listed)
