"""Units of work: the smallest things that are scheduled, fail and are repeated by themselves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from jobs.indices import IndexRange
from jobs.manifest import Manifest, Run
from jobs.specs import TrainSpec
from jobs.store import parse_shard_stem, shard_stem

Stage = Literal["train", "certify", "aggregate"]
STAGES: tuple[Stage, ...] = ("train", "certify", "aggregate")


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
class AggregateUnit:
    """Join the records of all runs of a grid."""

    grid: str
    stage: Stage = "aggregate"

    @property
    def name(self) -> str:
        return "aggregate"


Unit = TrainUnit | CertifyUnit | AggregateUnit


def unit_named(name: str, manifest: Manifest) -> Unit:
    """The unit of a grid that has a name.

    Raises:
        KeyError: The grid has no such run.
    """
    stage, _, rest = name.partition("/")
    if stage == "aggregate":
        return AggregateUnit(grid=manifest.grid)
    if stage == "train":
        return TrainUnit(train={run.train.key: run.train for run in manifest.runs}[rest])
    train_key, certify_key, stem = rest.split("/")
    # Of two runs that differ in their images only, either names the unit: it has its own.
    runs = {(run.train.key, run.certify.key): run for run in manifest.runs}
    return CertifyUnit(run=runs[train_key, certify_key], indices=parse_shard_stem(stem))


def shards_by_run(names: Iterable[str]) -> dict[tuple[str, str], list[IndexRange]]:
    """The indices of the certify units among some names of units, by (train key, certify key)."""
    found: dict[tuple[str, str], list[IndexRange]] = {}
    for name in names:
        stage, *keys = name.split("/")
        if stage == "certify":
            train_key, certify_key, stem = keys
            found.setdefault((train_key, certify_key), []).append(parse_shard_stem(stem))
    return found


@dataclass(frozen=True, kw_only=True)
class Resources:
    """How a unit may run. On a CPU nothing but ``threads`` changes a result: it changes how training rounds.

    Attributes:
        device: A torch device; auto is cuda where there is one, else cpu.
        threads: CPU threads of the process.
        batch_size: Rows handed to the device at a time when certifying.
        save_every_s: Certification saves finished images at least this often, in seconds.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    batch_size: int = 1000
    save_every_s: float = 30.0
