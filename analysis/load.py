"""The models of a grid, refused where they are not complete or cannot be compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa

from analysis.load_imported import load_imported
from analysis.models import (
    ROW_COLUMNS,
    CertifiedGrid,
    check_comparable,
    incomplete_message,
    label_models,
)
from analysis.runs import split_runs
from analysis.selection import Parameters, Where, check_where, matches, no_match
from jobs.aggregate import collect_run, is_current, known_images
from jobs.errors import ConfigError, RecordError
from jobs.files import records
from jobs.files.layouts import CERTIFICATION, layout_of
from jobs.files.manifest import open_grid
from jobs.files.store import Store, command_arguments
from jobs.specs.keys import digest
from jobs.specs.runs import Manifest, Place, Run
from jobs.specs.train import train_fields
from jobs.wording import counted

_REMEDY = "launch it again with the same settings (python -m pipeline.launch {name} ...)"


def load_grid(
    store: Store, grid: object, *, where: Where | None = None, allow_partial: bool = False, more: Sequence[str] = ()
) -> CertifiedGrid:
    """The certified models of a launched or imported grid.

    Args:
        store: The results folder.
        grid: The grid's name.
        where: Conditions on parameters; models that do not match are not read.
        allow_partial: Leave out incomplete models instead of raising an error.
        more: Columns to read besides ROW_COLUMNS.

    Raises:
        ConfigError: The results folder contains no such grid, or no model of it matches the conditions.
        RecordError: The grid is incomplete (names what is missing), its models cannot be compared
            (names two), or a file is invalid (names it).
    """
    conditions, columns = where or {}, (*ROW_COLUMNS, *more)
    check_where(conditions, "where")
    if grid in store.imported_names():
        return load_imported(store, str(grid), conditions, columns, allow_partial=allow_partial)
    manifest = _open_launched(store, grid)
    known = [(run, _parameters(run)) for run in manifest.of("certify")]
    chosen = [(run, model) for run, model in known if matches(model, conditions)]
    if not chosen:
        raise no_match(conditions, manifest.grid, [model for _, model in known])
    runs, parameters = [run for run, _ in chosen], [model for _, model in chosen]
    check_comparable(parameters, [str(run.indices) for run in runs])
    missing = {run.place: gap for run in runs if (gap := _gap(run, store))}
    name = command_arguments(manifest.grid, store.root)
    if missing and not allow_partial:
        remedy = _REMEDY.format(name=name)
        raise RecordError(incomplete_message(manifest.grid, len(runs), list(missing.values()), remedy))
    complete = [run for run in runs if run.place not in missing]
    if not complete:
        raise RecordError(f"grid {grid}: no certified model is complete yet; see python -m pipeline.status {name}")
    tables, images = _tables(manifest, complete, store, columns)
    known_images = [replace(known, images=images[run.place]) for run, known in chosen if run.place not in missing]
    check_comparable(known_images, [str(run.indices) for run in complete])
    labelled = zip(label_models(known_images, tables), complete, strict=True)
    models = tuple(replace(model, info=run.train.info) for model, run in labelled)
    return CertifiedGrid(name=manifest.grid, models=models, missing=tuple(missing.values()))


def _open_launched(store: Store, grid: object) -> Manifest:
    try:
        return open_grid(store, grid)
    except ConfigError as error:
        others = store.imported_names()
        if not others or grid in store.grid_names():
            raise
        raise ConfigError([f"{problem}; imported grids: {', '.join(others)}" for problem in error.problems]) from error


def _parameters(run: Run) -> Parameters:
    task = run.certify
    told = {**layout_of(run).columns, "mode": task.mode, "stop_rule": task.stop_rule, "radius_step": task.radius_step}
    return Parameters.from_columns({**told, "seed": run.train.seed, "recipe": _recipe(run)})


def _recipe(run: Run) -> str:
    """All fields of both specs but the seeds, and the key of the training, which holds one."""
    train = {name: value for name, value in train_fields(run.train).items() if name != "seed"}
    certify = {name: value for name, value in asdict(run.certify).items() if name not in ("seed", "train_key")}
    return digest("recipe", {"train": train, "certify": certify})


def _gap(run: Run, store: Store) -> str | None:
    """What is missing of a run, in words; None for a complete run. Only lists folders."""
    missing = store.unfinished(run.place, run.indices)
    if not missing:
        return None
    if not store.is_trained(run.train.key):
        return f"{run.train.key}: not trained"
    return f"{run.train.key}: {len(missing)} of {counted(len(run.indices), 'image')} not certified"


def _tables(
    manifest: Manifest, runs: Sequence[Run], store: Store, columns: Sequence[str]
) -> tuple[list[pa.Table], dict[Place, str]]:
    """The rows of each run, and by place the fingerprint of its images; empty where it is not known."""
    path = store.records_path(manifest.grid)
    if not is_current(path, manifest):
        collected = [collect_run(run, store) for run in runs]
        found = zip(runs, collected, strict=True)
        return [table.select(list(columns)) for table, _ in collected], {
            run.place: known_images(metadata) for run, (_, metadata) in found
        }
    by_key = split_runs(path, CERTIFICATION, columns)
    origins = json.loads(records.read_metadata(path).get("runs", "{}"))
    tables = []
    for run in runs:
        table = by_key.get((run.train.key, run.key))
        wanted = np.fromiter(run.indices, dtype=np.int64)
        if table is None or not np.array_equal(table["index"].to_numpy(), wanted):
            raise RecordError(
                f"{path}: the rows of {run.train.key} do not match its image indices; "
                f"remove {path.name} and launch the grid again"
            )
        tables.append(table)
    return tables, {run.place: known_images(origins.get(f"{run.train.key}/{run.key}", {})) for run in runs}
