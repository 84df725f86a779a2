"""grid.json: which runs a grid consists of, written by the launch and read by everyone after it."""

import shlex
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from jobs.atomic import read_json, remove_stale_temporaries, write_json
from jobs.errors import ConfigError, RecordError
from jobs.files.store import Store
from jobs.specs.indices import IndexRange, as_indices
from jobs.specs.keys import differences
from jobs.specs.runs import FORMAT, LISTS, TASKS, Manifest, Run, ShardStage, plain_manifest
from jobs.specs.train import TrainSpec, train_fields
from jobs.validation import STRICT, build, unknown_choice


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write grid.json, unless it already has this content."""
    if not is_written(path, manifest):
        write_json(path, plain_manifest(manifest))


def is_written(path: Path, manifest: Manifest) -> bool:
    """Whether a grid.json contains exactly this grid."""
    try:
        return bool(read_json(path) == plain_manifest(manifest))
    except (FileNotFoundError, ValueError):
        return False


def read_manifest(path: Path) -> Manifest:
    """The grid in a grid.json. Raises RecordError if it is damaged, was edited, or has another format."""
    try:
        plain = read_json(path)
        if plain["format"] != FORMAT:
            found = plain["format"]
            raise RecordError(f"{path}: format {found}, but this version reads {FORMAT}; launch the grid again")
        return Manifest(
            grid=plain["grid"],
            runs=tuple(
                _run(entry, stage, f"{name}[{number}]")
                for stage, name in LISTS.items()
                for number, entry in enumerate(plain[name])
            ),
        )
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{path}: not a grid manifest ({error}); launch the grid again") from error


def write_spec(store: Store, spec: TrainSpec) -> None:
    """Write spec.json, which describes a folder of ``runs``, and remove old temporary files there."""
    remove_stale_temporaries(store.run_dir(spec.key))
    write_json(store.spec_path(spec.key), {"key": spec.key, **train_fields(spec)})


def check_launchable(store: Store, grid: object) -> None:
    """Raise ConfigError if a grid was imported from logs."""
    if grid in store.imported_names():
        raise ConfigError(
            f"grid {grid} was imported from logs, so it cannot be launched or followed; choose another grid"
        )


def open_grid(store: Store, grid: object) -> Manifest:
    """The manifest of a grid that was launched into a results folder.

    Raises:
        ConfigError: There is none of that name, or its grid.json cannot be read.
    """
    known = store.grid_names()
    if grid is None:
        raise ConfigError(f"grid is required; write grid=NAME; in {store.root}: {', '.join(known) or 'none yet'}")
    check_launchable(store, grid)
    if grid not in known:
        reason = unknown_choice("grid", grid, known) if known else f"no grid was launched into {store.root}"
        raise ConfigError(
            f"{reason}; launch one with python -m pipeline.launch grid=NAME results={shlex.quote(str(store.root))}"
        )
    try:
        return read_manifest(store.manifest_path(str(grid)))
    except RecordError as error:
        raise ConfigError(str(error)) from error


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GridOptions:
    """The options that every command on a launched grid has."""

    grid: str | None
    results: Annotated[str, Field(min_length=1)]

    def open(self) -> tuple[Store, Manifest]:
        """The results folder, and the grid in it; raises as ``open_grid``."""
        store = Store(Path(self.results))
        return store, open_grid(store, self.grid)


def _run(entry: dict[str, Any], stage: ShardStage, where: str) -> Run:
    train = build(TrainSpec, entry["train"], where=f"{where}.train")
    task = build(TASKS[stage], entry[stage], where=f"{where}.{stage}")
    named = entry["indices"]
    indices = as_indices(named) if isinstance(named, list) else build(IndexRange, named, where=f"{where}.indices")
    stored = {"train_key": train.key, f"{stage}_key": task.key, f"{stage}.train_key": train.key}
    found = {name: entry.get(name) for name in (*stored,)} | {f"{stage}.train_key": task.train_key}
    if problem := differences(found, stored):
        raise ValueError(f"{where} was edited: {problem}")
    return Run(train=train, task=task, indices=indices)
