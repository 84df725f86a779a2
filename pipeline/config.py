"""The launch configuration as frozen dataclasses, every value checked, all errors at once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from jobs.errors import ConfigError
from jobs.validation import STRICT, build, unknown_choice

_POSITIVE = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GridConfig:
    """A grid as written in its file.

    Attributes:
        name: Names the folder of its results.
        blocks: Each a mapping from TrainSpec field (or sigma_cert) to a value or a list of values;
            stands for the product of its lists.
        exclude: Mappings; a model that agrees with all values of one of them is left out.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    blocks: tuple[Mapping[str, Any], ...]
    exclude: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ClusterConfig:
    """Where and how units run. Nothing in here is part of any key.

    Attributes:
        kind: local is a bounded pool of processes, debug this process.
        max_workers: Processes at a time; None is one for each CPU, divided by ``threads``.
        num_shards: Shards into which the missing images of a model are cut.
        device: Of the workers.
        threads: CPU threads of a worker.
        batch_size: Rows handed to the device at a time when certifying.
        save_every_s: Seconds between saves of a shard under way.
    """

    kind: Literal["local", "debug"]
    max_workers: _POSITIVE | None
    num_shards: _POSITIVE
    device: Literal["auto", "cpu", "cuda"]
    threads: _POSITIVE
    batch_size: _POSITIVE
    save_every_s: Annotated[float, Field(gt=0)]

    @property
    def num_workers(self) -> int:
        """Processes at a time."""
        return self.max_workers or max(1, _num_cpus() // self.threads)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LaunchConfig:
    """Everything a launch is told.

    Attributes:
        grid: What to do.
        train: Fields of TrainSpec that the blocks of the grid complete.
        certify: Fields of CertifySpec, and which images.
        cluster: Where to do it.
        results: The results folder.
        dry_run: Say what would be done, touch nothing.
    """

    grid: GridConfig
    train: Mapping[str, Any]
    certify: Mapping[str, Any]
    cluster: ClusterConfig
    results: str
    dry_run: bool


def parse_launch(config: Mapping[str, Any]) -> LaunchConfig:
    """The launch configuration.

    Raises:
        ConfigError: With all problems.
    """
    plain = dict(config)
    problems: list[str] = []
    for group, cls in (("grid", GridConfig), ("cluster", ClusterConfig)):
        section = plain.get(group)
        if not isinstance(section, Mapping):
            problems.append(f"{group}: expected an option of this group, got {section!r}")
            continue
        if "blocks" in section:
            section = {**section, "blocks": tuple(section["blocks"]), "exclude": tuple(section.get("exclude") or ())}
        try:
            plain[group] = build(cls, section, where=group)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return build(LaunchConfig, plain, where="launch")


def check_writable(results: Path) -> None:
    """Make the results folder, or raise ConfigError if nothing can be written there."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results):
            pass
    except OSError as error:
        raise ConfigError(
            [f"results: cannot write to {results} ({error.strerror}); choose another folder with results=PATH"]
        ) from error


def check_grid_name(name: str, results: Path, known: list[str]) -> None:
    """Raise ConfigError unless a grid of that name was launched into the results folder."""
    if name not in known:
        reason = unknown_choice("grid", name, known) if known else f"no grid was launched into {results}"
        raise ConfigError([f"{reason}; launch it first: python -m pipeline.launch grid={name} results={results}"])


def _num_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
