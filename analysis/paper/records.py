"""The records that tables and figures are drawn from: a tree of logs, or a grid."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from analysis.load import load_grid
from analysis.load_imported import load_imported_models
from analysis.logs.mapping import LogMapping
from analysis.logs.tree import read_tree
from analysis.models import ROW_COLUMNS, CertifiedModel, label_models
from analysis.selection import Parameters, Where, matches
from jobs.aggregate import Images, collect_run, is_current, other_images
from jobs.errors import RecordError
from jobs.files import records
from jobs.files.imported import PREDICTIONS
from jobs.files.layouts import ATTACK
from jobs.files.manifest import open_grid
from jobs.files.store import Store
from jobs.specs.runs import Manifest

if TYPE_CHECKING:
    import pandas as pd  # slow to import

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


@dataclass(frozen=True, kw_only=True, eq=False)
class PaperRecords:
    """The records to draw from."""

    models: tuple[CertifiedModel, ...]  # certified models, including those with short logs
    predictions: "pd.DataFrame"  # predictions at attacked images, in the columns of SCHEMA
    are_logs: bool  # whether they are published logs

    @property
    def datasets(self) -> list[str]:
        """Sorted."""
        return sorted({model.parameters.dataset for model in self.models} | set(self.predictions["dataset"]))

    def models_of(self, dataset: str, where: Where, not_in_logs: Sequence[Where]) -> list[CertifiedModel]:
        """The models of a dataset that match the conditions, ordered by sigma, epsilon and key."""
        chosen = [
            model
            for model in self.models
            if model.parameters.dataset == dataset
            and matches(model.parameters, {"split": "test", **where})
            and not (self.are_logs and any(matches(model.parameters, where_not) for where_not in not_in_logs))
        ]
        return sorted(chosen, key=_order)


def from_logs(root: Path, mapping: LogMapping) -> PaperRecords:
    """Records of a tree of logs."""
    tree = read_tree(root, mapping)
    named = label_models({number: Parameters.from_columns(model) for number, model in enumerate(tree.models)})
    tables = tree.tables("certification")
    models = [replace(named[number], rows=rows.select(ROW_COLUMNS)) for number, rows in enumerate(tables)]
    cast = [table.cast(PREDICTIONS.schema) for table in tree.tables("prediction")]
    logged: pd.DataFrame = pa.concat_tables([PREDICTIONS.schema.empty_table(), *cast]).to_pandas()
    return PaperRecords(models=tuple(models), predictions=logged.reindex(columns=SCHEMA.names), are_logs=True)


def from_grid(store: Store, grid: str) -> PaperRecords:
    """Records of a grid: for a launched one, its complete models and attacks.

    Raises ConfigError if there is no such grid, RecordError if its records are invalid.
    """
    if grid in store.imported_names():
        logged = records.read_records(store.predictions_path(grid), PREDICTIONS).to_pandas()
        predictions = logged.reindex(columns=SCHEMA.names)
        return PaperRecords(models=load_imported_models(store, grid, {}), predictions=predictions, are_logs=True)
    models = load_grid(store, grid, allow_partial=True).models
    attacked = _attacked_predictions(store, open_grid(store, grid))
    return PaperRecords(models=models, predictions=attacked, are_logs=False)


def whole_models(models: Sequence[CertifiedModel]) -> list[CertifiedModel]:
    """The models on the images that most of them share: the same list of images, the same indices of it."""
    if not models:
        return []
    usual = Counter(_images_of(model) for model in models).most_common(1)[0][0]
    return [model for model in models if _images_of(model) == usual]


def _attacked_predictions(store: Store, manifest: Manifest) -> "pd.DataFrame":
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


def select_rows(predictions: "pd.DataFrame", where: Mapping[str, Any]) -> "pd.DataFrame":
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


def _images_of(model: CertifiedModel) -> tuple[str, str, bytes]:
    return model.parameters.split, model.parameters.images, model.indices.tobytes()


def _order(model: CertifiedModel) -> tuple[float, float, str]:
    known = model.parameters
    return known.sigma_train or 0.0, known.epsilon or 0.0, known.train_key
