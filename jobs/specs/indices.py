"""Sets of image indices, mostly arithmetic progressions, and how they are cut into shards."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field
from pydantic.dataclasses import dataclass

from jobs.validation import STRICT, Fitting


@dataclass(frozen=True, kw_only=True, order=True, config=STRICT)
class IndexRange(Fitting):
    """The indices start, start + step, ... below stop; never empty."""

    start: Annotated[int, Field(ge=0)]
    stop: Annotated[int, Field(ge=1)]
    step: Annotated[int, Field(ge=1)] = 1

    def _problems(self) -> Iterator[str]:
        if self.stop <= self.start:
            yield f"indices {self.start} to {self.stop} are empty: stop must be above start"

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.stop, self.step))

    def __len__(self) -> int:
        return len(range(self.start, self.stop, self.step))

    def __contains__(self, index: object) -> bool:
        return index in range(self.start, self.stop, self.step)

    @property
    def array(self) -> npt.NDArray[np.int64]:
        """The indices, shape (N,)."""
        return np.arange(self.start, self.stop, self.step)

    def __str__(self) -> str:
        return f"{self.start}-{self.stop}-{self.step}"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class IndexList(Fitting):
    """Ascending indices that are not an arithmetic progression."""

    indices: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=2, strict=False)]

    def _problems(self) -> Iterator[str]:
        steps = np.diff(self.indices)
        if steps.min() <= 0 or steps.min() == steps.max():  # there must be only one way to write a set
            yield "indices must be ascending, distinct and no progression"

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def array(self) -> npt.NDArray[np.int64]:
        return np.array(self.indices)

    def __str__(self) -> str:
        digest = hashlib.sha256(repr(self.indices).encode()).hexdigest()[:8]
        return f"{len(self)} indices from {self.indices[0]} to {self.indices[-1]} ({digest})"


Indices = IndexRange | IndexList


def as_indices(values: Iterable[int]) -> Indices:
    """Some distinct indices >= 0, in any order, at least one: the same set gives the same whatever the order."""
    found = sorted(values)
    steps = set(np.diff(found).tolist()) or {1}
    if len(steps) > 1:
        return IndexList(indices=tuple(found))
    return IndexRange(start=found[0], stop=found[-1] + 1, step=steps.pop())


def missing_from(wanted: Indices, finished: Iterable[IndexRange]) -> list[int]:
    """The wanted indices that no finished range holds, ascending."""
    every = wanted.array
    is_finished = np.zeros(every[-1] + 1, dtype=bool)
    for shard in finished:
        is_finished[shard.start : shard.stop : shard.step] = True
    missing: list[int] = every[~is_finished[every]].tolist()
    return missing


def partition(missing: Iterable[int], max_size: int) -> list[IndexRange]:
    """Cut distinct indices >= 0 into disjoint progressions of at most ``max_size`` >= 1 each, in order of their starts.

    Greedy: from the smallest index left, follow the step that reaches furthest. The images between
    every 20th, for example, become a few long progressions and not 500 short runs.
    """
    left = np.unique(np.fromiter(missing, dtype=np.int64))
    shards: list[IndexRange] = []
    while left.size:
        chain = _longest_progression(left)
        for first in range(0, chain.size, max_size):
            part = chain[first : first + max_size].tolist()
            step = part[1] - part[0] if len(part) > 1 else 1
            shards.append(IndexRange(start=part[0], stop=part[-1] + 1, step=step))
        left = np.setdiff1d(left, chain, assume_unique=True) if chain.size < left.size else left[:0]
    return sorted(shards)


def shard_stem(indices: IndexRange) -> str:
    """The file name of a shard without its suffix; zero-padded, so that gaps show in a listing."""
    return f"{indices.start:06d}-{indices.stop:06d}-{indices.step:03d}"


def parse_shard_stem(stem: str) -> IndexRange:
    """The indices for which ``shard_stem`` gives a stem."""
    start, stop, step = map(int, stem.split("-"))
    return IndexRange(start=start, stop=stop, step=step)


def _longest_progression(indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    steps = np.diff(indices)
    if (steps == steps[:1]).all():  # most sets are a progression
        return indices
    values: list[int] = indices.tolist()
    first, present, best = values[0], set(values), (0, 0)
    # Steps beyond the first few gaps cannot beat them by much, and every step costs a walk.
    for step in (index - first for index in values[1:33]):
        length = 2
        while first + length * step in present:
            length += 1
        best = max(best, (length, -step))
    length, step = best[0], -best[1]
    return first + step * np.arange(length, dtype=np.int64)
