"""The certified models of grids that were imported from published logs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from analysis.models import (
    ROW_COLUMNS,
    CertifiedGrid,
    CertifiedModel,
    check_comparable,
    image_set,
    incomplete_message,
    label_models,
)
from analysis.runs import split_runs
from analysis.selection import Parameters, Where, matches, no_match
from jobs.errors import RecordError
from jobs.files import imported
from jobs.files.store import Store
from jobs.wording import counted

_REMEDY = "import logs that cover all images (import-report.csv lists the short ones)"


def load_imported(
    store: Store, grid: str, where: Where, columns: Sequence[str], *, allow_partial: bool
) -> CertifiedGrid:
    """The models of an imported grid that can be compared. Arguments as for ``load_grid``, which calls this."""
    models = load_imported_models(store, grid, where, columns)
    whole = _usual_indices(models)
    short = {model.label for model in models if _is_part(model.indices, whole[_list_of(model)])}
    missing = [
        f"{model.label}: {model.indices.size} of {counted(whole[_list_of(model)].size, 'image')}"
        for model in models
        if model.label in short
    ]
    if short and not allow_partial:
        raise RecordError(incomplete_message(grid, len(models), missing, _REMEDY))
    kept = [model for model in models if model.label not in short]
    check_comparable([model.parameters for model in kept], [image_set(model.indices) for model in kept])
    return CertifiedGrid(name=grid, models=tuple(kept), missing=tuple(missing), is_imported=True)


def load_imported_models(
    store: Store, grid: str, where: Where, columns: Sequence[str] = ROW_COLUMNS
) -> tuple[CertifiedModel, ...]:
    """All models of an imported grid that match the conditions, including short logs.

    Raises:
        ConfigError: No model matches.
        RecordError: A file is invalid.
    """
    listing = imported.read_listing(store, grid)
    chosen = [entry for entry in listing if matches(Parameters.from_columns(entry), where)]
    if not chosen:
        raise no_match(where, grid, [Parameters.from_columns(entry) for entry in listing])
    tables = _imported_tables(store, grid, chosen, columns)
    return label_models([Parameters.from_columns(entry) for entry in chosen], tables)


def _imported_tables(
    store: Store, grid: str, entries: Sequence[Mapping[str, Any]], columns: Sequence[str]
) -> list[pa.Table]:
    """The rows of some models of an imported grid, in the order given.

    Raises:
        RecordError: The records do not match the listing.
    """
    path = store.records_path(grid)
    by_key = split_runs(path, imported.IMPORTED, columns)
    tables = []
    for entry in entries:
        table = by_key.get((entry["train_key"], entry["certify_key"]))
        if table is None or len(table) != entry["num_rows"]:
            raise RecordError(
                f"{path}: the rows of {entry['train_key']} do not match import.json; import the logs again"
            )
        tables.append(table)
    return tables


def _list_of(model: CertifiedModel) -> tuple[str, str, str]:
    """The list of images that a model's indices are positions in."""
    return model.parameters.dataset, model.parameters.split, model.parameters.images


def _usual_indices(models: Sequence[CertifiedModel]) -> dict[tuple[str, str, str], npt.NDArray[np.int32]]:
    """Per list of images the indices that most models on it share."""
    usual = {}
    for images in {_list_of(model) for model in models}:
        sets = [model.indices for model in models if _list_of(model) == images]
        most = Counter(indices.tobytes() for indices in sets).most_common(1)[0][0]
        usual[images] = next(indices for indices in sets if indices.tobytes() == most)
    return usual


def _is_part(indices: npt.NDArray[np.int32], whole: npt.NDArray[np.int32]) -> bool:
    return indices.size < whole.size and bool(np.isin(indices, whole, assume_unique=True).all())
