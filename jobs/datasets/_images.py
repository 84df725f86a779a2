"""One split of a dataset, in memory or on disk."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Split = Literal["train", "test"]

CONTENT = "content:"
"""Begins fingerprints over pixels and labels of a tree. Before, they were over the names of files, without it."""


class Images(Protocol):
    """Images of one split, in the order that their indices name.

    Attributes:
        labels: Classes, int64, shape (N,).
        num_levels: Pixels are the integers 0 to this, which stand for [0, 1].
    """

    @property
    def labels(self) -> npt.NDArray[np.int64]: ...

    @property
    def num_levels(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """Stands for pixels and labels of all images, in their order: the same for the same contents."""
        ...

    @property
    def inputs(self) -> npt.NDArray[np.float32]:
        """All images in [0, 1], float32, shape (N, C, H, W). Raises DataError as ``pixels``."""
        ...

    def image(self, index: int) -> npt.NDArray[np.float32]:
        """One image as it is certified: pixels in [0, 1], float32, shape (C, H, W).

        Raises:
            DataError: The file cannot be decoded or has another size; names it.
        """
        ...

    def pixels(self) -> npt.NDArray[np.uint8]:
        """All images, 0 to ``num_levels``, uint8, shape (N, C, H, W).

        Raises:
            DataError: Files cannot be decoded or have another size; names them.
        """
        ...


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """One split in memory.

    Attributes:
        levels: Pixels 0 to ``num_levels``, uint8, shape (N, C, H, W).
        labels: Classes, int64, shape (N,).
        num_levels: What stands for a pixel of 1: 255 for 8-bit images.
    """

    levels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    num_levels: int = 255

    @property
    def inputs(self) -> npt.NDArray[np.float32]:
        scaled: npt.NDArray[np.float32] = self.levels.astype(np.float32) / np.float32(self.num_levels)
        return scaled

    @functools.cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.levels.tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()[:16]

    def image(self, index: int) -> npt.NDArray[np.float32]:
        image: npt.NDArray[np.float32] = self.levels[index].astype(np.float32) / np.float32(self.num_levels)
        return image

    def pixels(self) -> npt.NDArray[np.uint8]:
        return self.levels


def differ(fingerprint: str, other: str) -> bool:
    """Whether two fingerprints are of different images. Of two that were made in different ways nothing is known."""
    return fingerprint != other and fingerprint.startswith(CONTENT) == other.startswith(CONTENT)


def short_fingerprint(fingerprint: str) -> str:
    """The part of a fingerprint that is shown to people."""
    return fingerprint.removeprefix(CONTENT)[:12]
