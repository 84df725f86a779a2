"""grid.json: which runs a grid consists of, written by the launch and read by everyone after it."""

import contextlib
import shlex
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from jobs.atomic import read_json, reading_json, remove_stale_temporaries, write_json
from jobs.errors import ConfigError, RecordError
from jobs.files.store import Store
from jobs.specs.indices import IndexRange, as_indices
from jobs.specs.keys import differences
from jobs.specs.runs import FORMAT, LISTS, TASKS, Manifest, Run, ShardStage, plain_manifest
from jobs.specs.train import TrainSpec, train_fields
from jobs.validation import STRICT, build, unknown_choice


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write grid.json, unless it already has this content."""
    plain = plain_manifest(manifest)
    with contextlib.suppress(FileNotFoundError, ValueError):
        if read_json(path) == plain:
            return
    write_json(path, plain)


def read_manifest(path: Path) -> Manifest:
    """The grid in a grid.json. Raises RecordError if it is damaged, was edited, or has another format."""
    with reading_json(path, FORMAT, "a grid manifest", "launch the grid again") as plain:
        runs = [
            _run(entry, stage, f"{name}[{number}]")
            for stage, name in LISTS.items()
            for number, entry in enumerate(plain[name])
        ]
        return Manifest(grid=plain["grid"], runs=tuple(runs))


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
    """The manifest of a grid that was launched into a results folder. Raises ConfigError if it cannot be read."""
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
    """The options that every command on a grid has."""

    grid: str | None
    results: Annotated[str, Field(min_length=1)]

    @property
    def store(self) -> Store:
        """The results folder."""
        return Store(Path(self.results))

    def open(self) -> tuple[Store, Manifest]:
        """The results folder, and the grid in it; raises as ``open_grid``."""
        return self.store, open_grid(self.store, self.grid)


def _run(entry: dict[str, Any], stage: ShardStage, where: str) -> Run:
    train = build(TrainSpec, entry["train"], where=f"{where}.train")
    task = build(TASKS[stage], entry[stage], where=f"{where}.{stage}")
    named = entry["indices"]
    indices = as_indices(named) if isinstance(named, list) else build(IndexRange, named, where=f"{where}.indices")
    stored = {"train_key": train.key, f"{stage}_key": task.key, f"{stage}.train_key": train.key}
    found = {**{name: entry.get(name) for name in stored}, f"{stage}.train_key": task.train_key}
    if problem := differences(found, stored):
        raise ValueError(f"{where} was edited: {problem}")
    return Run(train=train, task=task, indices=indices)
