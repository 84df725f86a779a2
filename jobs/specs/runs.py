"""Runs: a task on a model and images; and grids of runs."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple

from jobs.specs.attack import AttackSpec
from jobs.specs.certify import CertifySpec
from jobs.specs.indices import IndexList, Indices
from jobs.specs.keys import canonical_json, plain
from jobs.specs.train import TrainSpec, train_fields
from jobs.validation import matching

FORMAT = 1
"""The format of grid.json."""

ShardStage = Literal["certify", "attack"]
"""The stages whose work is cut into shards of images."""

Task = CertifySpec | AttackSpec
"""A task on a model and images: one spec for each ShardStage."""

TASKS: Mapping[ShardStage, type[Task]] = {"certify": CertifySpec, "attack": AttackSpec}
SHARD_STAGES: tuple[ShardStage, ...] = tuple(TASKS)

LISTS: Mapping[ShardStage, str] = {"certify": "runs", "attack": "attacks"}
"""How grid.json names the list of a stage's runs."""

GridName = Annotated[
    str,
    matching(
        "[A-Za-z0-9][A-Za-z0-9._-]{0,99}",
        "a name: at most 100 letters, digits, '.', '_' and '-', beginning with a letter or a digit",
    ),
]
"""The name of a grid, which is also the name of a folder and part of job names."""


class Place(NamedTuple):
    """Identifies the folder of a run's shards: the model and the task, for any images."""

    train_key: str
    stage: ShardStage
    key: str


@dataclass(frozen=True, kw_only=True)
class Run:
    """One task on one model, for some images. Raises ValueError if the task is one on another model."""

    train: TrainSpec
    task: Task
    indices: Indices

    def __post_init__(self) -> None:
        if self.task.train_key != self.train.key:
            raise ValueError(f"train_key is {self.task.train_key}, but the model is {self.train.key}")

    @property
    def stage(self) -> ShardStage:
        return self.task.stage

    @property
    def certify(self) -> CertifySpec:
        """The task of a run that certifies."""
        assert isinstance(self.task, CertifySpec)
        return self.task

    @cached_property
    def place(self) -> Place:
        return Place(self.train.key, self.stage, self.task.key)

    @property
    def name(self) -> str:
        """Its name in logs and messages, with which the names of its units begin."""
        return f"{self.stage}/{self.keys}"

    @property
    def keys(self) -> str:
        """Both keys, which identify it among the runs of its stage, also in the metadata of joined records."""
        return f"{self.train.key}/{self.task.key}"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    grid: str  # its name
    runs: tuple[Run, ...]  # distinct runs: certifications in the order of the grid file, then attacks

    def of(self, stage: ShardStage) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.stage == stage)

    @cached_property
    def models(self) -> Mapping[str, TrainSpec]:
        """Its models by train key; a model that is certified in several ways occurs once."""
        return {run.train.key: run.train for run in self.runs}

    @property
    def fingerprint(self) -> str:
        """A hash of the content; aggregated records contain that of their grid."""
        return hashlib.sha256(canonical_json(plain_manifest(self)).encode()).hexdigest()[:16]


def plain_manifest(manifest: Manifest) -> dict[str, Any]:
    """A manifest as grid.json holds it."""
    lists: dict[str, list[dict[str, Any]]] = {name: [] for name in LISTS.values()}
    for run in manifest.runs:
        entry = {
            "train_key": run.train.key,
            f"{run.stage}_key": run.task.key,
            "train": train_fields(run.train),
            run.stage: plain(run.task),
            "indices": list(run.indices) if isinstance(run.indices, IndexList) else plain(run.indices),
        }
        lists[LISTS[run.stage]].append(entry)
    return {"format": FORMAT, "grid": manifest.grid, **lists}
