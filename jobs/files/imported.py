"""Records that others wrote: what a published log does not say is null, never guessed.

An imported grid is a folder of the results like any other. Instead of grid.json, ``import.json`` lists its models:
there is nothing in it to launch.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from jobs.atomic import reading_json, write_json
from jobs.files.layouts import CERTIFICATION, FLOAT, INT, STRING, RecordKind, schema_of
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
_TYPES = {field.name: field.type for field in CERTIFICATION.schema}

IMPORTED = RecordKind(
    "imported", schema_of({**_TYPES, "variant": STRING, "source": STRING}, nullable=_TYPES.keys() - _ALWAYS_KNOWN)
)
"""CERTIFICATION with everything nullable that a log may be silent on, and two columns more: ``variant``, the
parts of the path that the grammar does not know, and ``source``, the path and which columns it does not give."""

PREDICTIONS = RecordKind(
    "predictions",
    schema_of(
        {
            "dataset": STRING,
            "method": STRING,
            "attack": STRING,
            "attack_epsilon": FLOAT,
            "estimator": STRING,
            "m_test": INT,
            "n": INT,
            "alpha": FLOAT,
            "index": INT,
            "label": INT,
            "prediction": INT,
            "base_prediction": INT,
            "correct": pa.bool_(),
            "elapsed_s": pa.float32(),
            "variant": STRING,
            "source": STRING,
        },
        nullable=("method", "m_test", "alpha", "elapsed_s"),
    ),
)
"""PREDICT's answers at attacked images: one row per (attack, image). ``estimator`` says whose gradient the
attack followed: smoothed, gradient_free (both with m_test draws) or base (the base classifier's)."""


def write_listing(store: Store, grid: str, models: Sequence[dict[str, Any]]) -> None:
    """Write import.json: per model its run columns and its number of rows, in the order of the records."""
    write_json(store.import_path(grid), {"format": FORMAT, "grid": grid, "models": list(models)})


def read_listing(store: Store, grid: str) -> list[dict[str, Any]]:
    """The models of an imported grid. Raises RecordError if the file is damaged or has another format."""
    path = store.import_path(grid)
    with reading_json(path, FORMAT, "a list of imported models", "import the logs again") as content:
        return list(content["models"])
