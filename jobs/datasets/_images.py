"""The description of a dataset, and the images of one of its splits."""

import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from jobs.errors import DataError

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")

CONTENT = "content:"
"""Begins fingerprints over pixels and labels of a tree. Before, they were over the names of files, without it."""


Augmentation = Literal["none", "crop_flip", "resized_crop_flip"]
"""How training images are varied. crop_flip: 4 black pixels around, a random crop of the image's
size, and a flip at random. resized_crop_flip: a random part of random shape (8 to 100 % of the
area, aspect 3:4 to 4:3) resized, and a flip at random; such images stay on disk, all others are
kept in the device's memory."""


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """The description of a dataset that is known without reading it."""

    name: str  # the registry's
    num_classes: int  # K
    image_shape: tuple[int, int, int]  # (C, H, W)
    mean: tuple[float, ...]  # channel means of the training images in [0, 1], for the normalisation layer
    std: tuple[float, ...]  # channel standard deviations, likewise
    num_images: Mapping[Split, int]  # of the complete dataset
    num_levels: int = 255  # pixels are integers from 0 to this, which stands for 1: the grid of ``noise=exact_grid``
    augmentation: Augmentation = "none"  # of training images
    from_folder: bool = False  # whether it is read from a folder that the configuration names (``data.NAME``)
    any_size: bool = False  # whether the folder may hold another number of images than ``num_images``
    class_names: tuple[str, ...] = ()  # in the order of the classes; empty where numbers name them


class Images:
    """Images of one split, in the order that their indices name."""

    labels: npt.NDArray[np.int64]  # classes, shape (N,)
    num_levels: int  # pixels are the integers 0 to this, which stand for [0, 1]: 255 for 8-bit images

    @property
    def fingerprint(self) -> str:
        """A hash of the pixels and labels of all images, in their order."""
        raise NotImplementedError

    def pixels_of(self, index: int) -> npt.NDArray[np.uint8]:
        """One image, 0 to ``num_levels``, uint8, shape (C, H, W). Raises DataError if its file is not one."""
        raise NotImplementedError

    def pixels(self) -> npt.NDArray[np.uint8]:
        """All images, shape (N, C, H, W); else as ``pixels_of``."""
        raise NotImplementedError

    def image(self, index: int) -> npt.NDArray[np.float32]:
        """One image as it is certified: pixels in [0, 1], float32, shape (C, H, W); raises as ``pixels_of``."""
        return self.pixels_of(index).astype(np.float32) / np.float32(self.num_levels)


@dataclass(frozen=True, eq=False)
class ArrayImages(Images):
    """One split in memory."""

    levels: npt.NDArray[np.uint8]  # pixels 0 to ``num_levels``, shape (N, C, H, W)
    labels: npt.NDArray[np.int64]
    num_levels: int = 255

    @functools.cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.levels.tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()[:16]

    def pixels_of(self, index: int) -> npt.NDArray[np.uint8]:
        return cast(npt.NDArray[np.uint8], self.levels[index])

    def pixels(self) -> npt.NDArray[np.uint8]:
        return self.levels


def check_content(images: Images, info: DatasetInfo, split: Split) -> None:
    """Raise DataError unless images are as ``Images`` promises, since wrong ones could be certified too."""
    where, labels = f"{info.name}, {split} split", images.labels
    problems = []
    if labels.ndim != 1 or labels.dtype != np.int64:
        problems.append(f"labels must be int64 of shape (N,), got {labels.dtype} of shape {labels.shape}")
    elif labels.size and not (labels.min() >= 0 and labels.max() < info.num_classes):
        problems.append(f"labels must be from 0 to {info.num_classes - 1}, got {labels.min()} to {labels.max()}")
    if images.num_levels != info.num_levels:
        problems.append(f"num_levels is {images.num_levels}, expected {info.num_levels}")
    if isinstance(images, ArrayImages):
        problems += _level_problems(images.levels, len(labels), info)
    elif (shape := getattr(images, "image_shape", info.image_shape)) != info.image_shape:
        problems.append(f"images have shape {shape}, expected {info.image_shape}")
    if problems:
        raise DataError("\n".join(f"{where}: {problem}" for problem in problems))


def _level_problems(levels: npt.NDArray[Any], num_images: int, info: DatasetInfo) -> Iterator[str]:
    if levels.shape != (num_images, *info.image_shape):
        yield f"pixels have shape {levels.shape}, expected {(num_images, *info.image_shape)} as (N, C, H, W)"
    if levels.dtype != np.uint8:
        looks = np.issubdtype(levels.dtype, np.floating) and levels.size and levels.min() >= 0 and levels.max() <= 1
        scaled = f": they look like pixels in [0, 1]; multiply by {info.num_levels} and round" if looks else ""
        yield f"pixels must be uint8 from 0 to {info.num_levels}, got {levels.dtype}{scaled}"
    elif levels.size and levels.max() > info.num_levels:
        yield f"pixels must be from 0 to {info.num_levels}, but the largest is {levels.max()}"


def differ(fingerprint: str, other: str) -> bool:
    """Whether two fingerprints show different images. Two of different kinds show nothing."""
    return fingerprint != other and fingerprint.startswith(CONTENT) == other.startswith(CONTENT)


def short_fingerprint(fingerprint: str) -> str:
    """The part of a fingerprint that messages show."""
    return fingerprint.removeprefix(CONTENT)[:12]
