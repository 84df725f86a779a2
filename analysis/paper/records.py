"""The records that tables and figures are drawn from: a tree of logs, or a grid."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa

from analysis.load import load_grid
from analysis.load_imported import load_imported_models
from analysis.logs.mapping import LogMapping
from analysis.logs.tree import read_tree
from analysis.models import ROW_COLUMNS, CertifiedModel, label_models
from analysis.paper.declarations import Conditions
from analysis.paper.predictions import attacked_predictions, logged_predictions
from analysis.selection import Parameters, matches
from jobs.files import records
from jobs.files.imported import PREDICTIONS
from jobs.files.manifest import open_grid
from jobs.files.store import Store


@dataclass(frozen=True, kw_only=True, eq=False)
class PaperRecords:
    """The records to draw from."""

    models: tuple[CertifiedModel, ...]  # certified models, including those with short logs
    predictions: pd.DataFrame  # predictions at attacked images, in the columns of ``predictions.SCHEMA``
    are_logs: bool  # whether they are published logs

    @property
    def datasets(self) -> list[str]:
        """Sorted."""
        return sorted({model.parameters.dataset for model in self.models} | set(self.predictions["dataset"]))

    def models_of(self, dataset: str, where: Conditions, not_in_logs: Sequence[Conditions]) -> list[CertifiedModel]:
        """The models of a dataset that match the conditions, ordered by sigma, epsilon and key."""
        chosen = [
            model
            for model in self.models
            if model.parameters.dataset == dataset
            and matches(model.parameters, {"split": "test", **where})
            and not (self.are_logs and any(matches(model.parameters, where_not) for where_not in not_in_logs))
        ]
        return sorted(chosen, key=_order)


def from_logs(root: Path, mapping: LogMapping | None = None) -> PaperRecords:
    """Records of a tree of logs."""
    tree = read_tree(root, mapping)
    named = label_models({number: Parameters.from_columns(model) for number, model in enumerate(tree.models)})
    tables = tree.tables("certification")
    models = [replace(named[number], rows=rows.select(ROW_COLUMNS)) for number, rows in enumerate(tables)]
    predictions = pa.concat_tables(
        [PREDICTIONS.schema.empty_table(), *(table.cast(PREDICTIONS.schema) for table in tree.tables("prediction"))]
    )
    return PaperRecords(models=tuple(models), predictions=logged_predictions(predictions), are_logs=True)


def from_grid(store: Store, grid: str) -> PaperRecords:
    """Records of a grid: for a launched one, its complete models and attacks.

    Raises ConfigError if there is no such grid, RecordError if its records are invalid.
    """
    if grid in store.imported_names():
        logged = logged_predictions(records.read_records(store.predictions_path(grid), PREDICTIONS))
        return PaperRecords(models=load_imported_models(store, grid, {}), predictions=logged, are_logs=True)
    models = load_grid(store, grid, allow_partial=True).models
    predictions = attacked_predictions(store, open_grid(store, grid))
    return PaperRecords(models=models, predictions=predictions, are_logs=False)


def whole_models(models: Sequence[CertifiedModel]) -> list[CertifiedModel]:
    """The models on the images that most of them share: the same list of images, the same indices of it."""
    if not models:
        return []
    usual = Counter(_images_of(model) for model in models).most_common(1)[0][0]
    return [model for model in models if _images_of(model) == usual]


def _images_of(model: CertifiedModel) -> tuple[str, str, bytes]:
    return model.parameters.split, model.parameters.images, model.indices.tobytes()


def _order(model: CertifiedModel) -> tuple[float, float, str]:
    known = model.parameters
    return known.sigma_train or 0.0, known.epsilon or 0.0, known.train_key
