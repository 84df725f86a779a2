"""Records that others wrote: what a published log does not say is null, never guessed.

An imported grid is a folder of the results like any other, so that everything in ``analysis`` opens
it by name. It has no grid.json: there is nothing in it to launch. ``import.json`` lists its models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from jobs.atomic import read_json, write_json
from jobs.errors import RecordError
from jobs.files.records import SCHEMA, RecordKind
from jobs.files.store import Store

FORMAT = 1

_ALWAYS_KNOWN = {
    "train_key",
    "certify_key",
    "dataset",
    "split",
    "sigma_cert",
    "index",
    "label",
    "prediction",
    "radius",
    "correct",
}

IMPORTED = RecordKind(
    "imported",
    pa.schema([pa.field(field.name, field.type, nullable=field.name not in _ALWAYS_KNOWN) for field in SCHEMA])
    .append(pa.field("variant", pa.string(), nullable=False))
    .append(pa.field("source", pa.string(), nullable=False)),
)
"""SCHEMA with everything nullable that a log may be silent on, and two columns more: ``variant``, the
parts of the path that the grammar does not know, and ``source``, the path itself and which columns
are null because it does not give them."""

PREDICTIONS = RecordKind(
    "predictions",
    pa.schema(
        [
            pa.field("dataset", pa.string(), nullable=False),
            pa.field("method", pa.string()),
            pa.field("attack", pa.string(), nullable=False),
            pa.field("attack_epsilon", pa.float64(), nullable=False),
            pa.field("estimator", pa.string(), nullable=False),
            pa.field("m_test", pa.int32()),
            pa.field("n", pa.int32(), nullable=False),
            pa.field("alpha", pa.float64()),
            pa.field("index", pa.int32(), nullable=False),
            pa.field("label", pa.int32(), nullable=False),
            pa.field("prediction", pa.int32(), nullable=False),
            pa.field("base_prediction", pa.int32(), nullable=False),
            pa.field("correct", pa.bool_(), nullable=False),
            pa.field("elapsed_s", pa.float32()),
            pa.field("variant", pa.string(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
        ]
    ),
)
"""PREDICT's answers at attacked images: one row per (attack, image). ``estimator`` says whose gradient the
attack followed: smoothed, gradient_free (both with m_test draws) or base (the base classifier's)."""


def write_listing(store: Store, grid: str, models: Sequence[dict[str, Any]]) -> None:
    """Write import.json: per model its run columns and its number of rows, in the order of the records."""
    write_json(store.import_path(grid), {"format": FORMAT, "grid": grid, "models": list(models)})


def read_listing(store: Store, grid: str) -> list[dict[str, Any]]:
    """The models of an imported grid.

    Raises:
        RecordError: The file is damaged or of another format.
    """
    path = store.import_path(grid)
    try:
        content = read_json(path)
        if content["format"] != FORMAT:
            raise RecordError(f"{path}: format {content['format']}, this version reads {FORMAT}; import the logs again")
        return list(content["models"])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{path}: not a list of imported models ({error}); import the logs again") from error
