"""python -m pipeline.verify grid=NAME: read every file of a grid and name the damaged ones."""

if __name__ == "__main__":  # before the imports below: neither --help nor Ctrl-C waits for them
    from configs.entry import run_entry

    run_entry("verify", "pipeline.verify")

import json
import sys
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic.dataclasses import dataclass

from configs.entry import EXIT_FAILED
from jobs.aggregate import is_current, run_tables
from jobs.atomic import Damage, read_json, set_aside
from jobs.errors import RecordError
from jobs.files import records
from jobs.files.layouts import KINDS, RecordKind
from jobs.files.manifest import GridOptions
from jobs.files.store import Store
from jobs.host import num_cpus
from jobs.specs.keys import differences
from jobs.specs.runs import Manifest, ShardStage
from jobs.specs.train import TrainSpec, train_fields
from jobs.validation import STRICT, build
from jobs.wording import counted, say
from pipeline.state.files import Observation, observe, source_damages


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VerifyConfig(GridOptions):
    """What to verify; see configs/verify.yaml."""

    set_aside: bool


def verify(values: Mapping[str, Any]) -> int:
    """Read all files of a grid; returns the exit code. Raises ConfigError if there is no such grid."""
    config = build(VerifyConfig, values, where="")
    store, manifest = config.open()
    trained = [spec for key, spec in manifest.models.items() if store.is_trained(key)]
    observed, named, num_problems = observe(manifest, store), set[Path | None](), 0
    for path, problem in _damages(manifest, store, trained, observed):
        if path is not None and path in named:
            continue
        named.add(path)
        num_problems += 1
        moved = f"; moved to {set_aside(path).name}" if config.set_aside and path is not None else ""
        say(f"error: {'' if path is None else f'{path}: '}{problem}{moved}", sys.stderr)
    num_shards = sum(map(len, observed.shards.values()))
    say(f"grid {manifest.grid}: read {counted(len(trained), 'model')} and {counted(num_shards, 'shard')}")
    if not num_problems:
        say("no damage found")
        return 0
    step = "launch again to recreate them" if config.set_aside else "set_aside=true renames damaged files"
    say(f"{counted(num_problems, 'problem')}; {step}")
    return EXIT_FAILED


def _damages(manifest: Manifest, store: Store, trained: list[TrainSpec], observed: Observation) -> Iterator[Damage]:
    yield from observed.damaged
    with ThreadPoolExecutor(max_workers=num_cpus()) as pool:
        for found in pool.map(lambda spec: list(_model_damages(spec, store)), trained):
            yield from found
    for stage in {run.stage: None for run in manifest.runs}:
        yield from _stage_damages(stage, manifest, store, observed)


def _model_damages(spec: TrainSpec, store: Store) -> Iterator[Damage]:
    """What is wrong with a model's files. Its checkpoint is a zip file with a checksum for each tensor."""
    path = store.checkpoint_path(spec.key)
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            yield Damage(path, f"damaged: the checksum of {broken} does not match its content")
    except (OSError, zipfile.BadZipFile) as error:
        yield Damage(path, f"cannot be read: truncated or damaged ({error})")
    path = store.spec_path(spec.key)
    try:
        if problem := differences(read_json(path), {"key": spec.key, **train_fields(spec)}):
            yield Damage(path, f"belongs to another spec ({problem})")
    except (OSError, ValueError, AttributeError) as error:
        yield Damage(path, f"cannot be read ({error})")
    path = store.epochs_path(spec.key)
    try:
        if path.exists():
            pq.read_table(path, partitioning=None, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        yield Damage(path, f"cannot be read as Parquet: truncated or damaged ({reason})")
    yield from source_damages(spec, store)


def _stage_damages(stage: ShardStage, manifest: Manifest, store: Store, observed: Observation) -> Iterator[Damage]:
    """What is wrong with the shards of a stage, and with its joined records, which must contain exactly their rows.

    Keeps one shard and one row group in memory.
    """
    path, broken = store.records_path(manifest.grid, stage), list[Damage]()
    folders = {store.shards_dir(run.place) for run in manifest.of(stage)}
    # Joined records cannot be compared with shards that cannot be read.
    is_compared = all(damage.path is None or damage.path.parent not in folders for damage in observed.damaged)
    joined = _Rows(path, KINDS[stage]) if is_compared and is_current(path, manifest) else None

    def reject(shard: Path, problem: str) -> str:
        broken.append(Damage(shard, problem.removeprefix(f"{shard}: ")))
        return ""

    for run in manifest.of(stage):
        try:
            for table in run_tables(run, store, reject, is_thorough=True):
                if joined is None or broken or observed.missing(run):
                    continue
                if problem := joined.difference(table):
                    yield Damage(path, problem)
                    joined = None
        except RecordError as error:
            if joined is not None and not broken:
                yield Damage(None, str(error))
                joined = None
        except OSError as error:
            broken.append(Damage(Path(error.filename), str(error)))
    yield from broken
    if joined is not None and not broken and (problem := joined.problem_at_end()):
        yield Damage(path, problem)


class _Rows:
    """Reads the rows of joined records, in order."""

    _OTHERS = "its rows differ from those of the shards"

    def __init__(self, path: Path, kind: RecordKind) -> None:
        self._path = path
        self._groups = records.read_row_groups(path, kind, kind.schema.names)
        self._rest: pa.Table | None = None

    def difference(self, table: pa.Table) -> str | None:
        """How the next rows differ from those of a table; None if they are equal."""
        try:
            own = self._take(len(table))
        except RecordError as error:
            return str(error).removeprefix(f"{self._path}: ")
        if len(own) != len(table):
            return self._OTHERS
        both = pa.concat_tables([table, own]).unify_dictionaries()
        return None if both.slice(0, len(own)).equals(both.slice(len(own))) else self._OTHERS

    def problem_at_end(self) -> str | None:
        """What is wrong with the end of the file: rows after the last shard, or metadata that cannot be read."""
        try:
            json.loads(records.read_metadata(self._path).get("runs", "{}"))
            return self._OTHERS if len(self._take(1)) else None
        except (RecordError, ValueError) as error:
            return str(error).removeprefix(f"{self._path}: ")

    def _take(self, num: int) -> pa.Table:
        parts = [] if self._rest is None else [self._rest]
        while sum(map(len, parts)) < num and (group := next(self._groups, None)) is not None:
            parts.append(group)
        whole = pa.concat_tables(parts)  # there is at least one group
        self._rest = whole.slice(num)
        return whole.slice(0, num)
