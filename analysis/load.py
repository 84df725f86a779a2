"""The records of a grid as accuracy curves, refused where they cannot be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from jobs import records
from jobs.aggregate import collect_run, is_current
from jobs.errors import RecordError
from jobs.indices import missing_from
from jobs.manifest import Manifest, Run, open_grid
from jobs.store import Store
from smoothing.accuracy import AccuracyCurve

_NAMED = 5  # how many missing models a message names


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """One certified model of a grid.

    Attributes:
        label: Short and unique within the grid, for tables: pgd-s0.25-e0.50-m4-t2.
        run: Its specs.
        curve: Its certified accuracy.
    """

    label: str
    run: Run
    curve: AccuracyCurve


@dataclass(frozen=True, kw_only=True, eq=False)
class CertifiedGrid:
    """All models of a grid that can be compared.

    Attributes:
        name: The grid.
        models: In the grid's order, all certified on the same images with the same n and alpha.
        num_missing: Models left out because they are not complete; 0 for a complete grid.
    """

    name: str
    models: tuple[Model, ...]
    num_missing: int


def load_grid(store: Store, grid: object, *, allow_partial: bool = False) -> CertifiedGrid:
    """The models of a launched grid with their curves.

    Args:
        store: The results folder.
        grid: The grid's name.
        allow_partial: Leave out models that are not complete instead of refusing.

    Raises:
        ConfigError: No such grid was launched into the folder.
        RecordError: The grid is incomplete (names what is missing), its runs cannot be compared
            (names both), or a file is unsound (names it).
    """
    manifest = open_grid(store, grid)
    check_comparable(manifest.runs)
    missing = {_run_key(run): gap for run in manifest.runs if (gap := _gap(run, store))}
    if missing and not allow_partial:
        raise RecordError(_incomplete_message(manifest, list(missing.values()), store))
    complete = [run for run in manifest.runs if _run_key(run) not in missing]
    if not complete:
        raise RecordError(f"grid {grid}: no model is complete yet; python -m pipeline.status grid={grid}")
    labels = _labels(complete)
    tables = _tables(manifest, complete, store)
    models = [
        Model(label=label, run=run, curve=AccuracyCurve.from_records(table["correct"], table["radius"]))
        for label, run, table in zip(labels, complete, tables, strict=True)
    ]
    return CertifiedGrid(name=manifest.grid, models=tuple(models), num_missing=len(missing))


def check_comparable(runs: Sequence[Run]) -> None:
    """Raise RecordError unless all runs are certified on the same images with the same n and alpha."""
    first = runs[0]
    for run in runs[1:]:
        for what, ours, theirs in (
            ("images", f"{first.train.dataset} {first.certify.split} {first.indices}", _images(run)),
            ("n", first.certify.n, run.certify.n),
            ("alpha", first.certify.alpha, run.certify.alpha),
        ):
            if ours != theirs:
                raise RecordError(
                    f"mixed grid: {what} differ, so its models cannot be compared: {first.train.key} has {ours}, "
                    f"{run.train.key} has {theirs}; launch them as two grids"
                )


def _images(run: Run) -> str:
    return f"{run.train.dataset} {run.certify.split} {run.indices}"


def _run_key(run: Run) -> tuple[str, str]:
    return run.train.key, run.certify.key


def _gap(run: Run, store: Store) -> str | None:
    """What a run lacks, in words; None for a complete one. Reads listings only."""
    missing = missing_from(run.indices, store.finished_shards(*_run_key(run)))
    if not missing:
        return None
    if not store.is_trained(run.train.key):
        return f"{run.train.key}: not trained"
    return f"{run.train.key}: {len(missing)} of {len(run.indices)} images not certified"


def _incomplete_message(manifest: Manifest, gaps: list[str], store: Store) -> str:
    named = [f"  {gap}" for gap in gaps[:_NAMED]]
    if len(gaps) > _NAMED:
        named.append(f"  and {len(gaps) - _NAMED} more")
    return "\n".join(
        [
            f"grid {manifest.grid} is incomplete: {len(gaps)} of {len(manifest.runs)} models",
            *named,
            f"launch it again (python -m pipeline.launch grid={manifest.grid} results={store.root}), "
            "or draw what is there with allow_partial=true",
        ]
    )


def _tables(manifest: Manifest, runs: Sequence[Run], store: Store) -> list[pa.Table]:
    path = store.records_path(manifest.grid)
    if not is_current(path, manifest):
        return [collect_run(run, store)[0] for run in runs]
    table = records.read_records(path)
    tables = [_rows_of(table, run) for run in runs]
    for run, rows in zip(runs, tables, strict=True):
        if rows["index"].to_pylist() != list(run.indices):
            raise RecordError(f"{path}: the rows of {run.train.key} are not those of its images; {_rebuild(path)}")
    return tables


def _rows_of(table: pa.Table, run: Run) -> pa.Table:
    train_key, certify_key = _run_key(run)
    return table.filter((pc.field("train_key") == train_key) & (pc.field("certify_key") == certify_key))


def _rebuild(path: Path) -> str:
    return f"remove {path.name} and launch the grid again"


def _labels(runs: Sequence[Run]) -> list[str]:
    """The keys without dataset and hash, with the hash again where two would be the same."""
    short = [run.train.key.removeprefix(f"{run.train.dataset}-").rpartition("-")[0] for run in runs]
    return [
        label if short.count(label) == 1 else run.train.key.removeprefix(f"{run.train.dataset}-")
        for label, run in zip(short, runs, strict=True)
    ]
