"""Empirical-accuracy records: one row per (attack on a run, image)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.files.records import RecordKind
from jobs.specs.attack import AttackSpec
from jobs.specs.train import TrainSpec

SCHEMA = pa.schema(
    [
        pa.field("train_key", pa.string(), nullable=False),
        pa.field("attack_key", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("architecture", pa.string(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("train_attack", pa.string(), nullable=False),
        pa.field("sigma_train", pa.float64(), nullable=False),
        pa.field("epsilon_train", pa.float64(), nullable=False),
        pa.field("m_train", pa.int32(), nullable=False),
        pa.field("attack", pa.string(), nullable=False),
        pa.field("sigma", pa.float64(), nullable=False),
        pa.field("epsilon", pa.float64(), nullable=False),
        pa.field("num_steps", pa.int32(), nullable=False),
        pa.field("m_test", pa.int32(), nullable=False),
        pa.field("inverse_temperature", pa.float64(), nullable=False),
        pa.field("n", pa.int32(), nullable=False),
        pa.field("alpha", pa.float64(), nullable=False),
        pa.field("precision", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("prediction", pa.int32(), nullable=False),
        pa.field("counts", pa.list_(pa.field("element", pa.int32(), nullable=False)), nullable=False),
        pa.field("distance", pa.float64(), nullable=False),
        pa.field("correct", pa.bool_(), nullable=False),
        pa.field("elapsed_s", pa.float32(), nullable=False),
    ]
)
"""prediction is PREDICT's at the adversarial image (-1: it abstains), counts its votes per class,
distance the l2 length of the perturbation, at most epsilon. The rest is as in certification."""

ATTACK = RecordKind("attack", SCHEMA)


def run_columns(train: TrainSpec, attack: AttackSpec) -> dict[str, Any]:
    """The columns that every row of one attack on one run shares, with their values."""
    return {
        "train_key": train.key,
        "attack_key": attack.key,
        "dataset": train.dataset,
        "split": attack.split,
        "architecture": train.architecture,
        "method": train.method_name,
        "train_attack": train.attack,
        "sigma_train": train.sigma,
        "epsilon_train": train.epsilon,
        "m_train": train.m_train,
        "attack": attack.attack,
        "sigma": attack.sigma,
        "epsilon": attack.epsilon,
        "num_steps": attack.num_steps,
        "m_test": attack.m_test,
        "inverse_temperature": attack.inverse_temperature,
        "n": attack.n,
        "alpha": attack.alpha,
        "precision": attack.precision,
        "seed": attack.seed,
    }


def image_columns(label: int, prediction: int, counts: npt.NDArray[np.int64], distance: float) -> dict[str, Any]:
    """The columns that are one image's own, but for index, label and time."""
    return {
        "prediction": prediction,
        "counts": counts.tolist(),
        "distance": distance,
        "correct": prediction == label,
    }
