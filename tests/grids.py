"""Small grids of real digits, and what the tests ask of a results folder."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from configs.composition import compose_config
from jobs.files import records
from jobs.files.store import Store
from jobs.specs.indices import IndexRange, Indices
from jobs.specs.runs import Manifest
from pipeline.request.config import parse_launch

TINY = [
    "grid=digits",
    "grid.name=tiny",
    "grid.blocks=[{method: gaussian, sigma: 0.25}, "
    "{method: smoothadv, attack: pgd, sigma: 0.25, epsilon: [0.25, 0.5], m_train: 2, num_steps: 2, warmup_epochs: 1}]",
    "train.epochs=3",
    "certify.n=200",
    "certify.indices.stop=21",
    "cluster.max_workers=2",
    "cluster.num_shards=3",
    "cluster.save_every_s=0.05",
]
"""Three models of three epochs, 21 images each: seconds, and every stage."""

ATTACKED = [
    "grid.blocks=[{method: gaussian, sigma: 0.25}]",
    *("train.epochs=2", "certify.n=100", "certify.indices.stop=6", "cluster.num_shards=2", "cluster=debug"),
    *("attack=digits", "attack.indices.stop=4", "attack.indices.step=1", "attack.epsilon=0.5", "attack.num_steps=1"),
    *("attack.n=50", "attack.m_test=1"),
]
"""One model instead, certified and attacked in two shards each, in this process."""


def tiny(results: Path, *more: str) -> list[str]:
    """The command line of the tiny grid."""
    return [*TINY, f"results={results}", *more]


def compose_tiny(results: Path, *more: str) -> dict[str, Any]:
    """Its configuration."""
    return compose_config("launch", tiny(results, *more))


def tiny_manifest(*more: str) -> Manifest:
    """Its runs."""
    return parse_launch(compose_tiny(Path("unused"), *more)).manifest


def pretend(path: Path) -> None:
    """Make a file that a look at its end takes for whole: a Parquet file without a footer, an empty zip file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"PK\5\6" + bytes(18) if path.suffix == ".pt" else b"PAR1" + bytes(4) + b"PAR1")


def as_range(indices: Indices) -> IndexRange:
    """The images of a run that are a progression, as one shard of it has them."""
    assert isinstance(indices, IndexRange)
    return indices


def grid_records(results: Path, grid: str = "tiny") -> pa.Table:
    """The aggregated records without the columns that may differ between equal runs."""
    return records.read_records(Store(results).records_path(grid)).drop_columns(["elapsed_s"])


def finished_files(results: Path) -> dict[str, tuple[int, int]]:
    """Inode and mtime of every file that counts as finished."""
    names = [
        path for pattern in ("checkpoint.pt", "epochs.parquet", "*-*-*.parquet") for path in results.rglob(pattern)
    ]
    kept = [path for path in names if not path.name.endswith(".partial.parquet") and not path.name.startswith(".")]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in kept}
