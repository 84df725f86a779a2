"""Units of work: the smallest parts that are scheduled, fail and are repeated separately."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from jobs.specs.indices import IndexRange, parse_shard_stem, shard_stem
from jobs.specs.runs import SHARD_STAGES, Manifest, Run, ShardStage
from jobs.specs.train import TrainSpec

Stage = Literal["train", ShardStage, "aggregate"]
Compile = Literal[False, True, "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
"""Whether torch.compile is used, or in which of its modes; reduce-overhead captures CUDA graphs."""
CompileOrAuto = Literal[Compile, "auto"]
"""Or auto: measure whether it pays."""
STAGES: tuple[Stage, ...] = ("train", *SHARD_STAGES, "aggregate")


@dataclass(frozen=True, kw_only=True)
class TrainUnit:
    """Train one base classifier."""

    train: TrainSpec
    run: ClassVar[None] = None
    stage: ClassVar[Stage] = "train"
    part: ClassVar[str] = "epoch"

    @property
    def num_parts(self) -> int:
        """Parts after each of which its progress is saved."""
        return self.train.epochs

    @property
    def name(self) -> str:
        """The unit's name in logs and messages, unique within a grid."""
        return f"train/{self.train.key}"

    @property
    def num_processes(self) -> int:
        """The number of processes, each with its own GPU, that run it together; 1 for a published checkpoint."""
        return 1 if self.train.is_taken else self.train.num_processes


@dataclass(frozen=True, kw_only=True)
class ShardUnit:
    """Certify or attack one shard of one run: ``indices`` is a part of the run's."""

    run: Run
    indices: IndexRange
    num_processes: ClassVar[int] = 1
    part: ClassVar[str] = "image"

    @property
    def num_parts(self) -> int:
        return len(self.indices)

    @property
    def stage(self) -> ShardStage:
        return self.run.stage

    @property
    def train(self) -> TrainSpec:
        return self.run.train

    @property
    def name(self) -> str:
        return f"{self.run.name}/{shard_stem(self.indices)}"


@dataclass(frozen=True, kw_only=True)
class AggregateUnit:
    grid: str
    stage: ClassVar[Stage] = "aggregate"
    train: ClassVar[None] = None
    run: ClassVar[None] = None
    num_processes: ClassVar[int] = 1
    part: ClassVar[str] = "file"
    num_parts: ClassVar[int] = 1
    name: ClassVar[str] = "aggregate"


Unit = TrainUnit | ShardUnit | AggregateUnit


def unit_named(name: str, manifest: Manifest) -> Unit:
    """The unit of a grid that has a name. Raises KeyError where the grid has no such run."""
    stage, _, rest = name.partition("/")
    if stage == "aggregate":
        return AggregateUnit(grid=manifest.grid)
    if stage == "train":
        return TrainUnit(train=manifest.models[rest])
    # Two runs may differ only in their images; either will do, since the unit has its own images.
    run_name, _, stem = name.rpartition("/")
    return ShardUnit(run={run.name: run for run in manifest.runs}[run_name], indices=parse_shard_stem(stem))


def shards_by_run(names: Iterable[str]) -> dict[str, list[IndexRange]]:
    """The indices of the shards among these unit names, by the names of their runs."""
    found: dict[str, list[IndexRange]] = {}
    for name in names:
        if name.partition("/")[0] in SHARD_STAGES:
            run_name, _, stem = name.rpartition("/")
            found.setdefault(run_name, []).append(parse_shard_stem(stem))
    return found


@dataclass(frozen=True, kw_only=True)
class Resources:
    """How a unit may run. On a CPU compiling changes how a result is rounded, and ``threads`` that of a training."""

    device: Literal["auto", "cpu", "cuda"] = "auto"  # a torch device; auto is cuda where there is one, else cpu
    threads: int = 1  # CPU threads of the process
    batch_size: int = 1000  # rows given to the device at a time when certifying
    save_every_s: float = 30.0  # certification saves finished images at least this often, in seconds
    # Let torch.compile fuse the network's operations when certifying; rounds otherwise, so that a vote on the edge may
    # change, on a CPU too. auto does so where it pays.
    compile: CompileOrAuto = False
    compile_training: Compile = False  # the same for a training, whose weights then round otherwise
    # Certification fails where a precision other than float32 changes more of the votes on the first noisy rows than
    # this leaves, in [0, 1]
    min_equal_votes: float = 0.9
    data: Mapping[str, str | None] = field(default_factory=dict)  # folders of datasets that are read from disk, by name
    plugins: str | None = None  # the folder from which plug-ins are imported; None where there are none
