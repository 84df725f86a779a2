"""python -m pipeline.verify grid=NAME: read every file of a grid again, and name all that is damaged."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below: neither --help nor Ctrl-C waits for them
    from configs.entry import run_entry

    run_entry("verify", "pipeline.verify")

import json
import sys
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic.dataclasses import dataclass

from configs.entry import EXIT_FAILED
from jobs.aggregate import checked_shard, collect_run, is_current
from jobs.atomic import file_sha256, read_json, set_aside
from jobs.errors import RecordError
from jobs.files import records
from jobs.files.layouts import KINDS, layout_of
from jobs.files.manifest import GridOptions
from jobs.files.store import Store
from jobs.host import num_cpus
from jobs.specs.indices import IndexRange
from jobs.specs.keys import differences
from jobs.specs.runs import Manifest, Run, ShardStage
from jobs.specs.train import TrainSpec, train_fields
from jobs.validation import STRICT, build
from jobs.wording import counted


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VerifyConfig(GridOptions):
    """What to verify; see configs/verify.yaml."""

    set_aside: bool


class Damage(NamedTuple):
    """A file that is not what it should be, and why. ``path`` is None where no single file is to blame."""

    path: Path | None
    problem: str


def verify(values: Mapping[str, Any]) -> int:
    """Read everything that a grid has; returns the exit code.

    Raises:
        ConfigError: No such grid was launched into the results folder.
    """
    config = build(VerifyConfig, values, where="")
    store, manifest = config.open()
    runs = {run.place: run for run in manifest.runs}
    shards = [(run, indices) for run in runs.values() for indices in store.finished_shards(run.place)]
    trained = [spec for key, spec in manifest.models.items() if store.is_trained(key)]
    damages = list(_damages(manifest, store, shards, trained))
    for damage in damages:
        moved = f"; moved to {set_aside(damage.path).name}" if config.set_aside and damage.path is not None else ""
        print(f"error: {damage.problem}{moved}", file=sys.stderr)
    print(f"grid {manifest.grid}: read {counted(len(trained), 'model')} and {counted(len(shards), 'shard')}")
    if not damages:
        print("no damage found")
        return 0
    step = "launch again to recreate them" if config.set_aside else "set_aside=true renames damaged files"
    print(f"{counted(len(damages), 'problem')}; {step}")
    return EXIT_FAILED


def _damages(
    manifest: Manifest, store: Store, shards: list[tuple[Run, IndexRange]], trained: list[TrainSpec]
) -> Iterator[Damage]:
    with ThreadPoolExecutor(max_workers=num_cpus()) as pool:
        for found in pool.map(lambda spec: list(_model_damages(spec, store)), trained):
            yield from found
        broken = [found for found in pool.map(lambda shard: _shard_damage(shard[0], shard[1], store), shards) if found]
    yield from broken
    for stage in {run.stage for run in manifest.runs}:
        # Joined records cannot be compared with shards that cannot be read.
        yield from _records_damages(stage, manifest, store, compare=not broken)


def _model_damages(spec: TrainSpec, store: Store) -> Iterator[Damage]:
    """What is wrong with a model's files. Its checkpoint is a zip file with a checksum for each tensor."""
    path = store.checkpoint_path(spec.key)
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            yield Damage(path, f"{path}: damaged, the checksum of {broken} is not that of its content")
    except (OSError, zipfile.BadZipFile) as error:
        yield Damage(path, f"{path}: cannot be read, truncated or damaged ({error})")
    path = store.spec_path(spec.key)
    try:
        found = read_json(path)
        if problem := differences(found, {"key": spec.key, **train_fields(spec)}):
            yield Damage(path, f"{path}: of another spec ({problem})")
    except (OSError, ValueError, AttributeError) as error:
        yield Damage(path, f"{path}: cannot be read ({error})")
    path = store.epochs_path(spec.key)
    try:
        if path.exists():
            pq.read_table(path, partitioning=None, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        yield Damage(path, f"{path}: cannot be read as Parquet, truncated or damaged ({reason})")
    for sha256 in spec.source_hashes:
        source = store.source_path(sha256)
        if source.exists() and file_sha256(source) != sha256:
            yield Damage(source, f"{source}: damaged, it does not hash to its name")


def _shard_damage(run: Run, indices: IndexRange, store: Store) -> Damage | None:
    path = store.shard_path(run.place, indices)
    try:
        checked_shard(path, indices, layout_of(run))
    except (RecordError, OSError) as error:
        return Damage(path, str(error))
    return None


def _records_damages(stage: ShardStage, manifest: Manifest, store: Store, *, compare: bool) -> Iterator[Damage]:
    path, kind = store.records_path(manifest.grid, stage), KINDS[stage]
    if not path.exists():
        return
    try:
        table = records.read_records(path, kind)
        json.loads(records.read_metadata(path).get("runs", "{}"))
    except (RecordError, ValueError) as error:
        yield Damage(path, f"{path}: {error}" if str(path) not in str(error) else str(error))
        return
    if not compare or not is_current(path, manifest):
        return
    try:
        parts = [collect_run(run, store)[0] for run in manifest.of(stage)]
    except RecordError as error:
        yield Damage(None, str(error))
        return
    if not pa.concat_tables(parts).equals(table):
        yield Damage(path, f"{path}: holds other rows than the shards that it was made of")
