"""The records of a grid as accuracy curves, refused where they cannot be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from analysis.selection import Parameters, Where, check_where, matches
from jobs import imported, records
from jobs.aggregate import collect_run, is_current
from jobs.errors import ConfigError, RecordError
from jobs.indices import missing_from
from jobs.manifest import Manifest, Run, open_grid
from jobs.records import RecordKind
from jobs.store import Store
from smoothing.accuracy import AccuracyCurve

ROW_COLUMNS = (
    *("index", "prediction", "correct", "radius", "p_lower"),
    *("count_top", "n_used", "stop", "elapsed_s"),
)
"""What analysis needs of each image. The votes of single classes are left on the disk."""

VOTE_COLUMNS = ("label", "counts0")
"""What it takes besides to certify anew from the votes."""

_KEYS = ("train_key", "certify_key")
_NAMED = 5  # how many missing models a message names


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """One certified model of a grid.

    Attributes:
        label: Short and unique within the grid, for tables: pgd-s0.25-e0.50-m4-t2.
        parameters: What is known of it.
        rows: ROW_COLUMNS, one row per image, indices ascending. A column that the records leave null
            is null here.
    """

    label: str
    parameters: Parameters
    rows: pa.Table

    @cached_property
    def curve(self) -> AccuracyCurve:
        """Its certified accuracy."""
        return AccuracyCurve.from_records(self.column("correct"), self.column("radius"))

    @cached_property
    def indices(self) -> npt.NDArray[np.int32]:
        """Dataset indices of its images, ascending."""
        return np.asarray(self.column("index"))

    def column(self, name: str) -> npt.NDArray[Any]:
        """One of ROW_COLUMNS as an array, shape (N,)."""
        return np.asarray(self.rows[name].to_numpy())

    def has(self, name: str) -> bool:
        """Whether the records give this column for every image."""
        return not self.rows[name].null_count


@dataclass(frozen=True, kw_only=True, eq=False)
class CertifiedGrid:
    """All models of a grid that can be compared.

    Attributes:
        name: The grid.
        models: In the grid's order, all certified on the same images with the same n and alpha.
        missing: In words, the models left out because they are not complete; empty for a complete grid.
        is_imported: Whether the records are others' logs.
    """

    name: str
    models: tuple[Model, ...]
    missing: tuple[str, ...]
    is_imported: bool = False

    @property
    def num_missing(self) -> int:
        """Models left out."""
        return len(self.missing)


def load_grid(
    store: Store, grid: object, *, where: Where | None = None, allow_partial: bool = False, with_votes: bool = False
) -> CertifiedGrid:
    """The models of a launched or imported grid with their curves.

    Args:
        store: The results folder.
        grid: The grid's name.
        where: Conditions on parameters; models that do not meet them are not looked at.
        allow_partial: Leave out models that are not complete instead of refusing.
        with_votes: Read VOTE_COLUMNS too.

    Raises:
        ConfigError: No such grid was launched or imported into the folder.
        RecordError: The grid is incomplete (names what is missing), its runs cannot be compared
            (names both), nothing meets the conditions, or a file is unsound (names it).
    """
    conditions, columns = where or {}, (*ROW_COLUMNS, *(VOTE_COLUMNS if with_votes else ()))
    check_where(conditions, "where")
    if grid in store.imported_names():
        return _load_imported(store, str(grid), conditions, columns, allow_partial=allow_partial)
    manifest = _open_launched(store, grid)
    known = [(run, _parameters(run)) for run in manifest.runs]
    chosen = [(run, model) for run, model in known if matches(model, conditions)]
    if not chosen:
        raise RecordError(f"grid {grid}: no model meets the conditions {dict(conditions)}")
    runs, parameters = [run for run, _ in chosen], [model for _, model in chosen]
    check_comparable(parameters, [str(run.indices) for run in runs])
    keys = [(model.train_key, model.certify_key) for model in parameters]
    missing = {key: gap for key, run in zip(keys, runs, strict=True) if (gap := _gap(key, run, store))}
    if missing and not allow_partial:
        raise RecordError(_incomplete_message(manifest.grid, len(runs), list(missing.values()), _LAUNCH))
    complete = {key: run for key, run in zip(keys, runs, strict=True) if key not in missing}
    if not complete:
        raise RecordError(f"grid {grid}: no model is complete yet; python -m pipeline.status grid={grid}")
    tables = _tables(manifest, complete, store, columns)
    models = label_models([known for key, known in zip(keys, parameters, strict=True) if key in complete], tables)
    return CertifiedGrid(name=manifest.grid, models=models, missing=tuple(missing.values()))


def check_comparable(models: Sequence[Parameters], images: Sequence[str]) -> None:
    """Raise RecordError unless all models are certified on the same images with the same n and alpha.

    Args:
        models: At least one.
        images: Per model, its index set in words.
    """
    first, first_images = models[0], images[0]
    for other, other_images in zip(models, images, strict=True):
        for what, ours, theirs in (
            (
                "images",
                f"{first.dataset} {first.split} {first_images}",
                f"{other.dataset} {other.split} {other_images}",
            ),
            ("n", first.n, other.n),
            ("alpha", first.alpha, other.alpha),
        ):
            if ours != theirs:
                raise RecordError(
                    f"mixed grid: {what} differ, so its models cannot be compared: {first.train_key} has {ours}, "
                    f"{other.train_key} has {theirs}; take one kind with where, for example "
                    f'"where={{dataset: {first.dataset}}}", or launch two grids'
                )


def image_set(indices: npt.NDArray[np.int32]) -> str:
    """A set of indices in words: 500 images, 0 to 9980 by 20."""
    steps = np.unique(np.diff(indices))
    by = f" by {steps[0]}" if steps.size == 1 else ""
    return f"{indices.size} images, {indices[0]} to {indices[-1]}{by}"


def _open_launched(store: Store, grid: object) -> Manifest:
    try:
        return open_grid(store, grid)
    except ConfigError as error:
        others = store.imported_names()
        more = [f"imported from logs: {', '.join(others)}"] if others else []
        raise ConfigError([*error.problems, *more]) from error


def load_imported_models(
    store: Store, grid: str, where: Where, columns: Sequence[str] = ROW_COLUMNS
) -> tuple[Model, ...]:
    """The models of an imported grid that meet the conditions, comparable or not, whole or short.

    Raises:
        RecordError: None meets them, or a file is unsound.
    """
    listing = imported.read_listing(store, grid)
    chosen = [entry for entry in listing if matches(Parameters.from_columns(entry), where)]
    if not chosen:
        raise RecordError(f"grid {grid}: no model meets the conditions {dict(where)}")
    tables = _imported_tables(store, grid, chosen, columns)
    return label_models([Parameters.from_columns(entry) for entry in chosen], tables)


def label_models(parameters: Sequence[Parameters], tables: Sequence[pa.Table]) -> tuple[Model, ...]:
    """Models with labels that are unique among them."""
    return tuple(
        Model(label=label, parameters=known, rows=table)
        for label, known, table in zip(_labels(parameters), parameters, tables, strict=True)
    )


def _load_imported(
    store: Store, grid: str, where: Where, columns: Sequence[str], *, allow_partial: bool
) -> CertifiedGrid:
    models = load_imported_models(store, grid, where, columns)
    sets = Counter(model.indices.tobytes() for model in models)
    whole = next(model for model in models if model.indices.tobytes() == sets.most_common(1)[0][0])
    short = {model.label for model in models if _is_part(model.indices, whole.indices)}
    missing = [
        f"{model.label}: {model.indices.size} of {whole.indices.size} images"
        for model in models
        if model.label in short
    ]
    if short and not allow_partial:
        raise RecordError(_incomplete_message(grid, len(models), missing, _IMPORT))
    kept = [model for model in models if model.label not in short]
    check_comparable([model.parameters for model in kept], [image_set(model.indices) for model in kept])
    return CertifiedGrid(name=grid, models=tuple(kept), missing=tuple(missing), is_imported=True)


def _imported_tables(
    store: Store, grid: str, entries: Sequence[Mapping[str, Any]], columns: Sequence[str]
) -> list[pa.Table]:
    """The rows of some models of an imported grid, in the order asked for.

    Raises:
        RecordError: The records are not those of the listing.
    """
    path = store.records_path(grid)
    by_key = _split_runs(path, imported.IMPORTED, columns)
    tables = []
    for entry in entries:
        table = by_key.get((entry["train_key"], entry["certify_key"]))
        if table is None or len(table) != entry["num_rows"]:
            raise RecordError(f"{path}: the rows of {entry['train_key']} are not those listed; import the logs again")
        tables.append(table)
    return tables


def _is_part(indices: npt.NDArray[np.int32], whole: npt.NDArray[np.int32]) -> bool:
    return indices.size < whole.size and bool(np.isin(indices, whole, assume_unique=True).all())


def _parameters(run: Run) -> Parameters:
    return Parameters.from_columns({**records.run_columns(run.train, run.certify), "mode": run.certify.mode})


def _gap(key: tuple[str, str], run: Run, store: Store) -> str | None:
    """What a run lacks, in words; None for a complete one. Reads listings only."""
    missing = missing_from(run.indices, store.finished_shards(*key))
    if not missing:
        return None
    if not store.is_trained(key[0]):
        return f"{key[0]}: not trained"
    return f"{key[0]}: {len(missing)} of {len(run.indices)} images not certified"


_LAUNCH = "launch it again (python -m pipeline.launch grid={grid})"
_IMPORT = "their logs are short (see import-report.csv)"


def _incomplete_message(grid: str, num_models: int, gaps: list[str], remedy: str) -> str:
    named = [f"  {gap}" for gap in gaps[:_NAMED]]
    if len(gaps) > _NAMED:
        named.append(f"  and {len(gaps) - _NAMED} more")
    return "\n".join(
        [
            f"grid {grid} is incomplete: {len(gaps)} of {num_models} models",
            *named,
            f"{remedy.format(grid=grid)}, or draw what is there with allow_partial=true",
        ]
    )


def _tables(
    manifest: Manifest, runs: Mapping[tuple[str, str], Run], store: Store, columns: Sequence[str]
) -> list[pa.Table]:
    path = store.records_path(manifest.grid)
    if not is_current(path, manifest):
        return [collect_run(run, store)[0].select(list(columns)) for run in runs.values()]
    by_key = _split_runs(path, records.CERTIFICATION, columns)
    tables = []
    for key, run in runs.items():
        table = by_key.get(key)
        wanted = np.arange(run.indices.start, run.indices.stop, run.indices.step)
        if table is None or not np.array_equal(table["index"].to_numpy(), wanted):
            raise RecordError(
                f"{path}: the rows of {key[0]} are not those of its images; "
                f"remove {path.name} and launch the grid again"
            )
        tables.append(table)
    return tables


def _split_runs(path: Path, kind: RecordKind, columns: Sequence[str]) -> dict[tuple[str, str], pa.Table]:
    """Some columns of every run of a file in which the rows of a run stand together. Copies nothing."""
    table = records.read_records(path, kind, columns=[*_KEYS, *columns])
    if not len(table):
        return {}
    keys = [table[name].combine_chunks() for name in _KEYS]
    codes = [key.indices.to_numpy() for key in keys]
    changes = np.flatnonzero((np.diff(codes[0]) != 0) | (np.diff(codes[1]) != 0)) + 1
    starts, stops = [0, *changes.tolist()], [*changes.tolist(), len(table)]
    rows = table.select(list(columns))
    runs = [
        ((keys[0][start].as_py(), keys[1][start].as_py()), rows.slice(start, stop - start))
        for start, stop in zip(starts, stops, strict=True)
    ]
    by_key = dict(runs)
    if len(by_key) < len(runs):
        raise RecordError(f"{path}: the rows of a run do not stand together; remove the file and make it anew")
    return by_key


def _labels(models: Sequence[Parameters]) -> list[str]:
    """The keys without dataset and hash; where that names two, with as much more as tells them apart."""
    labels = [model.train_key.removeprefix(f"{model.dataset}-").rpartition("-")[0] for model in models]
    for detail in _DETAILS:
        shared = {label for label, count in Counter(labels).items() if count > 1}
        labels = [
            label + detail(model) if label in shared else label for label, model in zip(labels, models, strict=True)
        ]
    return labels


_DETAILS: tuple[Callable[[Parameters], str], ...] = (
    lambda model: f" ({model.variant})" if model.variant else "",
    lambda model: "" if model.is_certified_as_trained else f" at {model.sigma_cert:.2f}",
    lambda model: f" {model.train_key.rpartition('-')[2]}",
    lambda model: f" {model.certify_key}",
)
