"""grid.json: which runs a grid consists of, written by the launch and read by everyone after it."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from jobs.atomic import read_json, write_json
from jobs.attack_spec import AttackSpec
from jobs.errors import ConfigError, RecordError
from jobs.files.store import ShardStage, Store
from jobs.indices import IndexRange
from jobs.specs import CertifySpec, TrainSpec, canonical_json, train_fields
from jobs.validation import build, unknown_choice

FORMAT = 1

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
        return hashlib.sha256(canonical_json(_to_plain(self)).encode()).hexdigest()[:16]


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write grid.json, unless the same content is there already."""
    if not is_written(path, manifest):
        write_json(path, _to_plain(manifest))


def is_written(path: Path, manifest: Manifest) -> bool:
    """Whether just this grid is in a grid.json."""
    try:
        return bool(read_json(path) == _to_plain(manifest))
    except (FileNotFoundError, ValueError):
        return False


def read_manifest(path: Path) -> Manifest:
    """The grid in a grid.json.

    Raises:
        RecordError: The file is damaged, of another format, or was edited.
    """
    try:
        plain = read_json(path)
        if plain["format"] != FORMAT:
            raise RecordError(f"{path}: format {plain['format']}, this version reads {FORMAT}; launch the grid again")
        return Manifest(
            grid=plain["grid"],
            runs=tuple(_run(entry) for entry in plain["runs"]),
            attacks=tuple(_attack_run(entry) for entry in plain["attacks"]),
        )
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{path}: not a grid manifest ({error}); launch the grid again") from error


def check_launchable(store: Store, grid: object) -> None:
    """Raise ConfigError where a name is that of a grid imported from logs."""
    if grid in store.imported_names():
        raise ConfigError(
            [f"grid {grid} was imported from logs: there is nothing in it to launch or to follow; take another name"]
        )


def open_grid(store: Store, grid: object) -> Manifest:
    """The manifest of a grid that was launched into a results folder.

    Raises:
        ConfigError: There is none of that name, or its grid.json cannot be read.
    """
    known = store.grid_names()
    if grid is None:
        raise ConfigError([f"grid is required; write grid=NAME; in {store.root}: {', '.join(known) or 'none yet'}"])
    check_launchable(store, grid)
    if grid not in known:
        reason = unknown_choice("grid", grid, known) if known else f"no grid was launched into {store.root}"
        raise ConfigError(
            [f"{reason}; launch one with python -m pipeline.launch grid=NAME results={shlex.quote(str(store.root))}"]
        )
    try:
        return read_manifest(store.manifest_path(str(grid)))
    except RecordError as error:
        raise ConfigError([str(error)]) from error


def _run(entry: dict[str, Any]) -> Run:
    return Run(
        train=build(TrainSpec, entry["train"], where="train"),
        certify=build(CertifySpec, entry["certify"], where="certify"),
        indices=build(IndexRange, entry["indices"], where="indices"),
    )


def _attack_run(entry: dict[str, Any]) -> AttackRun:
    return AttackRun(
        train=build(TrainSpec, entry["train"], where="train"),
        attack=build(AttackSpec, entry["attack"], where="attack"),
        indices=build(IndexRange, entry["indices"], where="indices"),
    )


def _to_plain(manifest: Manifest) -> dict[str, Any]:
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
