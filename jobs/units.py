"""Units of work: the smallest things that are scheduled, fail and are repeated by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from jobs.indices import IndexRange
from jobs.manifest import AttackRun, Run
from jobs.specs import TrainSpec
from jobs.store import shard_stem

Stage = Literal["train", "certify", "attack", "aggregate"]
STAGES: tuple[Stage, ...] = ("train", "certify", "attack", "aggregate")


@dataclass(frozen=True, kw_only=True)
class TrainUnit:
    """Train one base classifier."""

    train: TrainSpec
    stage: Stage = "train"

    @property
    def name(self) -> str:
        """Names the unit in logs and messages; unique within a grid."""
        return f"train/{self.train.key}"


@dataclass(frozen=True, kw_only=True)
class CertifyUnit:
    """Certify one shard of one run: ``indices`` is a part of the run's."""

    run: Run
    indices: IndexRange
    stage: Stage = "certify"

    @property
    def name(self) -> str:
        return f"certify/{self.run.train.key}/{self.run.certify.key}/{shard_stem(self.indices)}"


@dataclass(frozen=True, kw_only=True)
class AttackUnit:
    """Attack the images of one shard of an attack: ``indices`` is a part of its."""

    run: AttackRun
    indices: IndexRange
    stage: Stage = "attack"

    @property
    def name(self) -> str:
        return f"attack/{self.run.train.key}/{self.run.attack.key}/{shard_stem(self.indices)}"


@dataclass(frozen=True, kw_only=True)
class AggregateUnit:
    """Join the records of all runs of a grid."""

    grid: str
    stage: Stage = "aggregate"

    @property
    def name(self) -> str:
        return "aggregate"


ShardUnit = CertifyUnit | AttackUnit
Unit = TrainUnit | ShardUnit | AggregateUnit


@dataclass(frozen=True, kw_only=True)
class Resources:
    """How a unit may run. On a CPU nothing but ``threads`` changes a result: it changes how training rounds.

    Attributes:
        device: A torch device; auto is cuda where there is one, else cpu.
        threads: CPU threads of the process.
        batch_size: Rows handed to the device at a time when certifying.
        compile: Let torch.compile fuse the network's operations when certifying; rounds otherwise, so
            that a vote on the edge may change, on a CPU too.
        save_every_s: Certification saves finished images at least this often, in seconds.
        data: Folders of the datasets that are read from disk, by dataset.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    batch_size: int = 1000
    save_every_s: float = 30.0
    compile: bool = False
    data: Mapping[str, str | None] = field(default_factory=dict)
