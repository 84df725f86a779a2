"""Sums over the widest columns of a run, computed when its records are joined, for tables."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

SUMMARY_KEY = "summary"
"""Its key in the origin of a run in joined records."""

NUM_BINS = 25
SUMMED = ("label", "counts0", "p_lower", "elapsed_s")
"""The columns that a summary covers."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Sums over the records of a run; 0, nan or empty for missing columns."""

    num_votes: int = 0  # of selection: n0 for each image
    num_right: int = 0  # those of them that are for the image's label
    elapsed_s: float = math.nan  # of certification
    bounds: tuple[int, ...] = ()  # how many images have p_lower in each of NUM_BINS equal bins of [0, 1]

    @property
    def accuracy_under_noise(self) -> float:
        """The base classifier's accuracy on noisy images, in [0, 1]; unbiased, since all n0 votes are cast."""
        return self.num_right / self.num_votes if self.num_votes else math.nan

    @property
    def text(self) -> str:
        """Its JSON, which ``read_summary`` reads."""
        return json.dumps(asdict(self))


def read_summary(text: str) -> Summary:
    """The summary in a text of ``summary_text``."""
    return Summary(**json.loads(text))


def summary_of(rows: pa.Table) -> Summary:
    """The summary of some rows, as far as they have the columns."""
    there = {name for name in SUMMED if name in rows.column_names and not rows[name].null_count}
    num_votes = num_right = 0
    if {"counts0", "label"} <= there:
        votes_NK = votes_of(rows, "counts0")
        num_votes = int(votes_NK.sum(dtype=np.int64))
        num_right = int(votes_NK[np.arange(len(rows)), rows["label"].to_numpy()].sum(dtype=np.int64))
    bounds = np.zeros(0, np.int64)
    if "p_lower" in there:
        bounds = np.histogram(rows["p_lower"].to_numpy(), bins=NUM_BINS, range=(0.0, 1.0))[0]
    return Summary(
        num_votes=num_votes,
        num_right=num_right,
        elapsed_s=float(rows["elapsed_s"].to_numpy().sum(dtype=np.float64)) if "elapsed_s" in there else math.nan,
        bounds=tuple(bounds.tolist()),
    )


def total(parts: Sequence[Summary]) -> Summary:
    return Summary(
        num_votes=sum(part.num_votes for part in parts),
        num_right=sum(part.num_right for part in parts),
        elapsed_s=sum(part.elapsed_s for part in parts),
        bounds=tuple(map(sum, zip(*(part.bounds for part in parts), strict=True))),
    )


def votes_of(rows: pa.Table, name: str) -> npt.NDArray[np.int32]:
    """A column of votes, shape (N, K)."""
    return np.asarray(rows[name].combine_chunks().flatten().to_numpy()).reshape(len(rows), -1 if len(rows) else 0)
