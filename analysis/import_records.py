"""python -m analysis.import_records source=DIR: import a grid that analysis.publish wrote."""

if __name__ == "__main__":  # before the imports below: neither --help nor Ctrl-C waits for them
    from configs.entry import run_entry

    run_entry("import_records", "analysis.import_records")

import filecmp
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from analysis.publish.files import check_checksums, exchange_weights, record_paths
from jobs.atomic import write_atomically
from jobs.errors import ConfigError, RecordError
from jobs.files.folders import check_writable
from jobs.files.manifest import read_manifest
from jobs.files.store import Store, command_arguments
from jobs.specs.runs import Manifest
from jobs.validation import STRICT, build
from jobs.wording import counted


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ImportConfig:
    """Options of the command; see configs/import_records.yaml."""

    source: str | None
    results: Annotated[str, Field(min_length=1)]


def import_records(values: dict[str, Any]) -> int:
    """Check a publication, and copy it into a results folder; returns the exit code.

    Raises ConfigError, also if the results folder has other files in these places, or RecordError with every damaged
    file.
    """
    config = build(ImportConfig, values, where="import_records")
    if not config.source:
        raise ConfigError("source is required; write source=DIR, a folder that analysis.publish wrote")
    source, store = Store(Path(config.source)), Store(Path(config.results))
    if not source.checksums_path().is_file():
        raise ConfigError(f"source: {source.checksums_path()} is missing; name a folder that analysis.publish wrote")
    listed = check_checksums(source)
    manifest = read_manifest(source.manifest_path(source.grid_names()[0]))
    paths = list(record_paths(manifest, source))
    if unlisted := [str(path) for path in paths if path not in listed]:
        raise RecordError(f"not in {source.checksums_path()}: {', '.join(unlisted)}; remove them")
    if problems := list(_conflicts(manifest, source, store)):
        raise ConfigError([*problems, "nothing was imported; choose another folder with results=DIR"])
    check_writable(store.root, "results")
    exchange_weights("import", source, store, manifest)
    for path in paths:
        copy = store.root / path.relative_to(source.root)
        write_atomically(copy, partial(shutil.copyfile, path), replace=False)
    print(f"imported grid {manifest.grid}: {counted(len(manifest.models), 'model')}")
    print(f"next: python -m analysis.envelope {command_arguments(manifest.grid, store.root)}")
    return 0


def _conflicts(manifest: Manifest, source: Store, store: Store) -> Iterator[str]:
    """What conflicts in the results folder: a grid with this name, or other records of a run."""
    if manifest.grid in store.imported_names():
        yield f"{store.grid_dir(manifest.grid)}: a grid with this name was imported from logs"
    kept = {path for key in manifest.models for path in (source.spec_path(key), source.epochs_path(key))}
    for path in record_paths(manifest, source):
        ours = store.root / path.relative_to(source.root)
        if path not in kept and ours.exists() and not filecmp.cmp(path, ours, shallow=False):
            yield f"{ours}: exists with different content"
    for run in manifest.runs:
        if set(store.finished_shards(run.place)) - set(source.finished_shards(run.place)):
            yield f"{store.shards_dir(run.place)}: already has other records"
