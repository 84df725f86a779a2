"""Predictions at attacked images, from logs and from our own attacks, in the same columns."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import pyarrow as pa

from jobs.aggregate import Images, collect_run, is_current, other_images
from jobs.errors import RecordError
from jobs.files import records
from jobs.files.imported import PREDICTIONS
from jobs.files.layouts import ATTACK
from jobs.files.store import Store
from jobs.specs.runs import Manifest

CLASSIFIER = ["train_key", "sigma"]
"""Together they identify the smoothed classifier that was attacked; null in logs, which do not say."""

_OURS_ONLY = (*CLASSIFIER, "split", "sigma_train", "epsilon_train", "m_train", "num_steps", "inverse_temperature")

SCHEMA = pa.schema([*PREDICTIONS.schema, *(ATTACK.schema.field(name) for name in _OURS_ONLY)])
"""The columns that the conditions of a curve may name. Those that logs do not contain are null there."""

LARGEST = "largest"
"""In a condition on a number: the largest value in the records that match the conditions before it."""

_ESTIMATORS = {"pgd": "smoothed", "ddn": "smoothed", "stein": "gradient_free", "stein_hard": "gradient_free"}
_AS_IN_LOGS = {"pgd": "pgd", "ddn": "ddn", "vanilla": "pgd", "stein": "pgd", "stein_hard": "pgd"}
_READ = ("dataset", "method", "attack", "epsilon", "m_test", "n", "alpha", "index", "correct", *_OURS_ONLY)


def logged_predictions(table: pa.Table) -> pd.DataFrame:
    """A table of kind PREDICTIONS as a frame with the columns of SCHEMA."""
    frame: pd.DataFrame = table.to_pandas()
    return frame.reindex(columns=SCHEMA.names)


def attacked_predictions(store: Store, manifest: Manifest) -> pd.DataFrame:
    """The complete attacks of a launched grid in the columns of SCHEMA. Raises RecordError if a file is invalid.

    As in logs, ``attack`` is pgd for every kind of PGD, and ``estimator`` says whose gradient it follows.
    ``variant`` is hard if a gradient-free attack used hard outputs, else empty.
    """
    frame: pd.DataFrame = _attack_table(store, manifest).to_pandas()
    attack = frame["attack"].astype(object)
    estimator = attack.map(_ESTIMATORS).fillna("base")
    named = frame.rename(columns={"epsilon": "attack_epsilon"}).assign(
        attack=attack.map(_AS_IN_LOGS),
        estimator=estimator,
        m_test=frame["m_test"].where(estimator != "base"),  # the base classifier is attacked without noise
        variant=attack.eq("stein_hard").map({True: "hard", False: ""}),
    )
    return named.reindex(columns=SCHEMA.names)


def select(predictions: pd.DataFrame, where: Mapping[str, Any]) -> pd.DataFrame:
    """The rows that match every condition: a column and its value, a list of values, or LARGEST."""
    rows = predictions
    for name, wanted in where.items():
        allowed = [rows[name].max()] if wanted == LARGEST else wanted if isinstance(wanted, list) else [wanted]
        rows = rows[rows[name].isin(allowed)]
    return rows


def _attack_table(store: Store, manifest: Manifest) -> pa.Table:
    path, columns = store.records_path(manifest.grid, "attack"), list(_READ)
    attacks = manifest.of("attack")
    if attacks and is_current(path, manifest):
        return records.read_records(path, ATTACK, columns)
    images: Images = {}
    tables, problems = [ATTACK.schema.empty_table().select(columns)], []
    for run in attacks:
        if not store.unfinished(run.place, run.indices):
            table, origin = collect_run(run, store)
            tables.append(table.select(columns))
            problems += other_images(run, origin, images)
    if problems:
        raise RecordError("\n".join(problems))
    return pa.concat_tables(tables)
