"""Runs: what is done to which model on which images; and a grid of them."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from jobs.specs.attack import AttackSpec
from jobs.specs.certify import CertifySpec
from jobs.specs.indices import IndexRange
from jobs.specs.keys import canonical_json
from jobs.specs.train import TrainSpec, train_fields

FORMAT = 1
"""Of grid.json."""

ShardStage = Literal["certify", "attack"]
"""The stages whose work is cut into shards of images."""

GridName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
"""What a grid may be called: it is the name of a folder, and part of the names of jobs."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One model of a grid: how it is trained, how it is certified, on which images."""

    train: TrainSpec
    certify: CertifySpec
    indices: IndexRange

    stage: ClassVar[ShardStage] = "certify"

    @property
    def key(self) -> str:
        """Of what is done to the model."""
        return self.certify.key

    @property
    def name(self) -> str:
        """Names it in logs and messages; the names of its units begin with it."""
        return f"{self.stage}/{self.train.key}/{self.key}"


@dataclass(frozen=True, kw_only=True)
class AttackRun:
    """One attack on one model of a grid, on which images."""

    train: TrainSpec
    attack: AttackSpec
    indices: IndexRange

    stage: ClassVar[ShardStage] = "attack"

    @property
    def key(self) -> str:
        """Of what is done to the model."""
        return self.attack.key

    @property
    def name(self) -> str:
        """Names it in logs and messages; the names of its units begin with it."""
        return f"{self.stage}/{self.train.key}/{self.key}"


ShardedRun = Run | AttackRun


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A grid, expanded.

    Attributes:
        grid: Its name.
        runs: Distinct runs in the order of the grid file.
        attacks: Distinct attacks on the models of these runs.
    """

    grid: str
    runs: tuple[Run, ...]
    attacks: tuple[AttackRun, ...] = ()

    @property
    def sharded(self) -> tuple[ShardedRun, ...]:
        """Everything that is done to models image by image."""
        return (*self.runs, *self.attacks)

    @property
    def train_keys(self) -> frozenset[str]:
        """Of its models; one that is certified in several ways is there once."""
        return frozenset(run.train.key for run in self.runs)

    @property
    def fingerprint(self) -> str:
        """Stands for the content: aggregated records carry that of the grid they are made for."""
        return hashlib.sha256(canonical_json(plain_manifest(self)).encode()).hexdigest()[:16]


def plain_manifest(manifest: Manifest) -> dict[str, Any]:
    runs = [
        {
            "train_key": run.train.key,
            "certify_key": run.certify.key,
            "train": train_fields(run.train),
            "certify": asdict(run.certify),
            "indices": asdict(run.indices),
        }
        for run in manifest.runs
    ]
    attacks = [
        {
            "train_key": run.train.key,
            "attack_key": run.attack.key,
            "train": train_fields(run.train),
            "attack": asdict(run.attack),
            "indices": asdict(run.indices),
        }
        for run in manifest.attacks
    ]
    return {"format": FORMAT, "grid": manifest.grid, "runs": runs, "attacks": attacks}
