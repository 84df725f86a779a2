"""The launch configuration as frozen dataclasses, every value checked, all errors at once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from jobs.errors import ConfigError
from jobs.manifest import Manifest
from jobs.validation import STRICT, collect
from pipeline.grid import GridConfig, expand
from pipeline.sources import checkpoint_files

_Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ClusterConfig:
    """Where and how units run. Nothing in here is part of any key.

    Attributes:
        kind: local is a bounded pool of processes, debug this process.
        max_workers: Processes at a time; None is one for each CPU, divided by ``threads``.
        num_shards: Shards into which the images of a model are cut.
        device: Of the workers.
        threads: CPU threads of a worker.
        batch_size: Rows handed to the device at a time when certifying.
        compile: Whether workers let torch.compile fuse the network when certifying.
        save_every_s: Seconds between saves of a shard under way.
    """

    kind: Literal["local", "debug"]
    max_workers: _Positive | None
    num_shards: _Positive
    device: Literal["auto", "cpu", "cuda"]
    threads: _Positive
    batch_size: _Positive
    compile: bool
    save_every_s: Annotated[float, Field(gt=0)]

    @property
    def num_workers(self) -> int:
        """Processes at a time."""
        return self.max_workers or max(1, _num_cpus() // self.threads)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class _Options:
    """The keys of launch.yaml that belong to no group."""

    results: Annotated[str, Field(min_length=1)]
    dry_run: bool
    data: dict[str, str | None]


@plain_dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    """Everything a launch is told.

    Attributes:
        manifest: What to do: the grid, expanded.
        cluster: Where to do it.
        results: The results folder.
        data: Folders of the datasets that are read from disk.
        sources: Files of published checkpoints, by the hash that specs name them by.
        dry_run: Say what would be done, touch nothing.
    """

    manifest: Manifest
    cluster: ClusterConfig
    results: Path
    data: Mapping[str, str | None]
    sources: Mapping[str, Path]
    dry_run: bool


def parse_launch(values: Mapping[str, Any]) -> LaunchConfig:
    """The launch configuration.

    Args:
        values: As composed from configs/launch.yaml: grid, train, certify, cluster, results, ...

    Raises:
        ConfigError: With all problems of all groups.
    """
    problems: list[str] = []
    rest = {key: value for key, value in values.items() if key not in ("grid", "train", "certify", "attack", "cluster")}
    options = collect(problems, _Options, rest, where="launch")
    cluster = collect(problems, ClusterConfig, values["cluster"], where="cluster")
    grid = collect(problems, GridConfig, values["grid"], where="grid")
    manifest = None
    if grid is not None:
        try:
            data = options.data if options else {}
            manifest = expand(grid, values["train"], values["certify"], attack=values["attack"], data=data)
        except ConfigError as error:
            problems += error.problems
    if options is None or cluster is None or manifest is None or problems:
        raise ConfigError(problems)
    return LaunchConfig(
        manifest=manifest,
        cluster=cluster,
        results=Path(options.results),
        data=options.data,
        sources=checkpoint_files(grid.blocks, values["train"]) if grid else {},
        dry_run=options.dry_run,
    )


def check_writable(results: Path) -> None:
    """Make the results folder, or raise ConfigError if nothing can be written there."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        for folder in (results, results / "runs", results / "grids"):
            if folder.exists():
                with tempfile.TemporaryFile(dir=folder):
                    pass
    except OSError as error:
        raise ConfigError(
            [f"results: cannot write to {results} ({error.strerror}); choose another folder with results=PATH"]
        ) from error


def _num_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
