"""Loads the models of a grid; refuses incomplete grids and models that cannot be compared."""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from pydantic import Field
from pydantic.dataclasses import dataclass

from analysis.load_imported import load_imported
from analysis.models import CertifiedGrid, CertifiedModel, check_comparable, incomplete_message, label_models
from analysis.runs import ALL_ROWS, Reading, read_runs
from analysis.selection import Parameters, Where, select
from jobs.aggregate import collect_run, is_current, known_images
from jobs.errors import ConfigError, RecordError
from jobs.files import records
from jobs.files.folders import check_writable
from jobs.files.layouts import CERTIFICATION, shared_columns
from jobs.files.manifest import GridOptions, open_grid
from jobs.files.store import Store, command_arguments
from jobs.files.summary import SUMMARY_KEY
from jobs.specs.keys import digest, plain
from jobs.specs.runs import Manifest, Run
from jobs.specs.train import train_fields
from jobs.validation import STRICT
from jobs.wording import counted


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelOptions(GridOptions):
    """The options of every command about the models of one grid; its file in configs explains them."""

    output: Annotated[str, Field(min_length=1)] | None
    where: dict[str, Any] | None
    allow_partial: bool

    def load(self, reading: Reading = ALL_ROWS) -> CertifiedGrid:
        """The grid, as ``load_grid`` returns it."""
        _hide_pandas()
        return load_grid(self.store, self.grid, where=self.where, allow_partial=self.allow_partial, reading=reading)

    def output_or(self, default: Path, *, is_file: bool = False) -> Path:
        """The output folder. Raises ConfigError if it cannot be written to."""
        path = Path(self.output) if self.output else default
        if is_file and path.is_dir():
            raise ConfigError(f"output: {path} is a folder; write the path of a file")
        check_writable(path.parent if is_file else path, "output")
        return path


class _Hidden(MetaPathFinder):
    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname == "pandas":
            raise ImportError(fullname)


def _hide_pandas() -> None:
    """Keep Arrow from importing pandas, which takes 0.2 s and 30 MB and is not needed here."""
    if "pandas" not in sys.modules:
        hidden = _Hidden()
        sys.meta_path.insert(0, hidden)
        try:
            pa.array([0])
        finally:
            sys.meta_path.remove(hidden)


def load_grid(
    store: Store, grid: object, *, where: Where | None = None, allow_partial: bool = False, reading: Reading = ALL_ROWS
) -> CertifiedGrid:
    """The certified models of a launched or imported grid that meet the conditions; no others are read.

    ``allow_partial`` leaves out incomplete models instead of raising an error.

    Raises:
        ConfigError: The results folder contains no such grid, or no model of it matches the conditions.
        RecordError: The grid is incomplete (names what is missing), its models cannot be compared
            (names two), or a file is invalid (names it).
    """
    conditions = where or {}
    if grid in store.imported_names():
        return load_imported(store, str(grid), conditions, reading, allow_partial=allow_partial)
    manifest = _open_launched(store, grid)
    chosen = select({run: _parameters(run) for run in manifest.of("certify")}, conditions, manifest.grid)
    check_comparable(list(chosen.values()), [str(run.indices) for run in chosen])
    missing = {run: gap for run in chosen if (gap := _gap(run, store))}
    name = command_arguments(manifest.grid, store.root)
    if missing and not allow_partial:
        remedy = f"launch it again with the same settings (python -m pipeline.launch {name} ...)"
        raise RecordError(incomplete_message(manifest.grid, len(chosen), list(missing.values()), remedy))
    complete = {run: known for run, known in chosen.items() if run not in missing}
    if not complete:
        raise RecordError(f"grid {grid}: no certified model is complete yet; see python -m pipeline.status {name}")
    models = _read(manifest, label_models(complete), store, reading)
    check_comparable([model.parameters for model in models], [str(run.indices) for run in complete])
    return CertifiedGrid(name=manifest.grid, models=tuple(models), missing=tuple(missing.values()))


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
    told = {**shared_columns(run), "mode": task.mode, "stop_rule": task.stop_rule, "radius_step": task.radius_step}
    specs = {"train": train_fields(run.train), "certify": plain(run.certify)}
    recipe = {  # the key of the training contains its seed
        name: {field: value for field, value in fields.items() if field not in ("seed", "train_key")}
        for name, fields in specs.items()
    }
    return Parameters.from_columns({**told, "seed": run.train.seed, "recipe": digest("recipe", recipe)})


def _gap(run: Run, store: Store) -> str | None:
    """What a run lacks; None for a complete run. Only lists folders."""
    missing = store.unfinished(run.place, run.indices)
    if not missing:
        return None
    if not store.is_trained(run.train.key):
        return f"{run.train.key}: not trained"
    return f"{run.train.key}: {len(missing)} of {counted(len(run.indices), 'image')} not certified"


def _read(
    manifest: Manifest, models: Mapping[Run, CertifiedModel], store: Store, reading: Reading
) -> list[CertifiedModel]:
    """The models with their rows, from the joined records or from their shards."""
    path = store.records_path(manifest.grid)
    if not is_current(path, manifest):
        return [_made(run, model, *collect_run(run, store), reading) for run, model in models.items()]
    told = json.loads(records.read_metadata(path).get("runs", "{}"))
    indices = {run.indices: pa.chunked_array([pa.array(run.indices.array, pa.int32())]) for run in models}
    by_key = {(run.train.key, run.task.key): run for run in models}
    columns = reading.columns(is_summary_known=all(SUMMARY_KEY in told.get(run.keys, {}) for run in models))
    found = {}
    for key, rows in read_runs(path, CERTIFICATION, columns, by_key):
        run = by_key[key]
        if rows["index"].equals(indices[run.indices]):
            shared = rows.set_column(rows.column_names.index("index"), "index", indices[run.indices])
            found[run] = _made(run, models[run], shared, told.get(run.keys, {}), reading)
    if lost := [run.train.key for run in models if run not in found]:
        remedy = f"remove {path.name} and launch the grid again"
        raise RecordError(f"{path}: the rows of {lost[0]} do not match its image indices; {remedy}")
    return [found[run] for run in models]


def _made(
    run: Run, model: CertifiedModel, rows: pa.Table, origin: Mapping[str, str], reading: Reading
) -> CertifiedModel:
    """A model with its rows, and with what the metadata of its shards state; what these do not state is unknown."""
    correct, seen = (int(origin.get(name, 0)) for name in (records.CLEAN_CORRECT, records.CLEAN_SEEN))
    told = replace(
        model,
        parameters=replace(model.parameters, images=known_images(origin)),
        info=run.train.info,
        clean_accuracy=correct / seen if seen else math.nan,
    )
    return reading.made(told, rows, origin.get(SUMMARY_KEY))
