"""The kinds of records and their columns, and the columns that a run determines."""

import operator
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jobs.specs.keys import canonical_json, plain
from jobs.specs.runs import Run, ShardStage
from jobs.specs.train import train_fields

STRING, INT, FLOAT = pa.string(), pa.int32(), pa.float64()
_COUNTS = pa.list_(pa.field("element", INT, nullable=False))


@dataclass(frozen=True)
class RecordKind:
    name: str  # in the file's metadata; a file of one kind is never read as another
    schema: pa.Schema  # The columns. Those that are not nullable are never null.


@dataclass(frozen=True, kw_only=True)
class Layout:
    kind: RecordKind  # their schema
    specs: Mapping[str, str]  # the specs that their files' metadata hold, canonical JSON by name
    columns: Mapping[str, Any]  # the columns that all of them share, with their values


def schema_of(types: Mapping[str, pa.DataType], nullable: Collection[str] = ()) -> pa.Schema:
    """A schema of columns that are never null, except those named."""
    return pa.schema([pa.field(name, type_, nullable=name in nullable) for name, type_ in types.items()])


def layout_of(run: Run) -> Layout:
    """The layout of a run's records."""
    return Layout(
        kind=KINDS[run.stage],
        specs={
            "train_spec": canonical_json(train_fields(run.train)),
            f"{run.stage}_spec": canonical_json(plain(run.task)),
        },
        columns=shared_columns(run),
    )


def shared_columns(run: Run) -> dict[str, Any]:
    """The columns that all records of a run share, with their values."""
    sources = {name: source for name, (_, source) in _COLUMNS[run.stage].items() if source}
    return {name: operator.attrgetter(source)(run) for name, source in sources.items()}


# Of each column the type, and where in a run its value is; nowhere if each image has its own.
_COLUMNS: Mapping[ShardStage, Mapping[str, tuple[pa.DataType, str]]] = {
    "certify": {
        "train_key": (STRING, "train.key"),
        "certify_key": (STRING, "task.key"),
        "dataset": (STRING, "train.dataset"),
        "split": (STRING, "task.split"),
        "architecture": (STRING, "train.architecture"),
        "method": (STRING, "train.method_name"),
        "attack": (STRING, "train.attack"),
        "sigma_train": (FLOAT, "train.sigma"),
        "sigma_cert": (FLOAT, "task.sigma_cert"),
        "epsilon": (FLOAT, "train.epsilon"),
        "m_train": (INT, "train.m_train"),
        "num_steps": (INT, "train.num_steps"),
        "seed": (pa.int64(), "task.seed"),
        "index": (INT, ""),
        "label": (INT, ""),
        "prediction": (INT, ""),
        "n0": (INT, "task.n0"),
        "n": (INT, "task.n"),
        "n_used": (INT, ""),
        "counts0": (_COUNTS, ""),
        "counts": (_COUNTS, ""),
        "count_top": (INT, ""),
        "alpha": (FLOAT, "task.alpha"),
        "p_lower": (FLOAT, ""),
        "radius": (FLOAT, ""),
        "correct": (pa.bool_(), ""),
        "stop": (STRING, ""),
        "noise": (STRING, "task.noise"),
        "precision": (STRING, "task.precision"),
        "elapsed_s": (pa.float32(), ""),
    },
    "attack": {
        "train_key": (STRING, "train.key"),
        "attack_key": (STRING, "task.key"),
        "dataset": (STRING, "train.dataset"),
        "split": (STRING, "task.split"),
        "architecture": (STRING, "train.architecture"),
        "method": (STRING, "train.method_name"),
        "train_attack": (STRING, "train.attack"),
        "sigma_train": (FLOAT, "train.sigma"),
        "epsilon_train": (FLOAT, "train.epsilon"),
        "m_train": (INT, "train.m_train"),
        "attack": (STRING, "task.attack"),
        "sigma": (FLOAT, "task.sigma"),
        "epsilon": (FLOAT, "task.epsilon"),
        "num_steps": (INT, "task.num_steps"),
        "m_test": (INT, "task.m_test"),
        "inverse_temperature": (FLOAT, "task.inverse_temperature"),
        "n": (INT, "task.n"),
        "alpha": (FLOAT, "task.alpha"),
        "precision": (STRING, "task.precision"),
        "seed": (pa.int64(), "task.seed"),
        "index": (INT, ""),
        "label": (INT, ""),
        "prediction": (INT, ""),
        "counts": (_COUNTS, ""),
        "distance": (FLOAT, ""),
        "correct": (pa.bool_(), ""),
        "elapsed_s": (pa.float32(), ""),
    },
}


def _kind(name: str, stage: ShardStage) -> RecordKind:
    return RecordKind(name, schema_of({column: type_ for column, (type_, _) in _COLUMNS[stage].items()}))


CERTIFICATION = _kind("certification", "certify")
"""What our own runs write; README.md of the results folder explains the columns. Files without a kind are of this
one."""

ATTACK = _kind("attack", "attack")
"""prediction is PREDICT's at the adversarial image (-1: it abstains), counts its votes per class,
distance the l2 length of the perturbation, at most epsilon. The rest is as in certification."""

KINDS: Mapping[ShardStage, RecordKind] = {"certify": CERTIFICATION, "attack": ATTACK}
"""The kind of a stage's records."""
