"""Registry of datasets: one module each, named as the dataset.

A module defines ``INFO``, a ``DatasetInfo``, and ``open_split(split, folder) -> Images``. It must
import cheaply (no torch; heavy libraries inside functions), since the login node reads ``INFO`` to
check a grid. A dataset with files of its own (``INFO.from_folder``) also defines
``check(folder, needed)`` (the splits), ``is_prepared(folder, marks)`` and ``prepare(folder, marks)``; see
``jobs.prepare``. An image tree with one folder for each class needs no code but its ``INFO`` and
``TREE`` (``cifar10_images`` and ``imagenet`` are examples). A module whose name begins with an
underscore is shared code, not a dataset.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from jobs.datasets._images import CONTENT, ArrayImages, Images, Split, differ, short_fingerprint
from jobs.errors import ConfigError, DataError
from jobs.validation import unknown_choice

__all__ = [
    "CONTENT",
    "ArrayImages",
    "Augmentation",
    "DatasetInfo",
    "Images",
    "Split",
    "count_images",
    "data_folder",
    "dataset_info",
    "dataset_module",
    "dataset_names",
    "differ",
    "load_images",
    "open_files",
    "short_fingerprint",
]

Augmentation = Literal["none", "crop_flip", "resized_crop_flip"]
"""How training images are varied. crop_flip: 4 black pixels around, a random crop of the image's
size, and a flip at random. resized_crop_flip: a random part of random shape (8 to 100 % of the
area, aspect 3:4 to 4:3) resized, and a flip at random; such images stay on disk, all others are
kept in the device's memory."""


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What can be known of a dataset without reading it.

    Attributes:
        name: The registry's name.
        num_classes: K.
        image_shape: (C, H, W).
        mean: Channel means of the training images in [0, 1], for the normalisation layer.
        std: Channel standard deviations, likewise.
        num_images: Images per split of the complete dataset.
        num_levels: Pixels are integers from 0 to this, which stands for 1: 255 for 8-bit images. The
            grid of ``noise=exact_grid``.
        augmentation: Of training images.
        from_folder: Whether it is read from a folder that the configuration names (``data.NAME``).
        any_size: Whether the folder may hold another number of images than ``num_images``.
        class_names: Of the classes in their order; empty where numbers name them.
    """

    name: str
    num_classes: int
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_images: Mapping[Split, int]
    num_levels: int = 255
    augmentation: Augmentation = "none"
    from_folder: bool = False
    any_size: bool = False
    class_names: tuple[str, ...] = ()


def dataset_names() -> list[str]:
    """The names of all datasets, sorted."""
    return list(_names())


def dataset_module(name: str) -> ModuleType:
    """The module of one dataset. Raises ConfigError naming the valid ones."""
    if name not in dataset_names():
        raise ConfigError([unknown_choice("dataset", name, dataset_names())])
    return importlib.import_module(f"{__name__}.{name}")


def dataset_info(name: str) -> DatasetInfo:
    """The entry of one dataset. Raises ConfigError naming the valid ones."""
    return cast(DatasetInfo, dataset_module(name).INFO)


def data_folder(name: str, data: Mapping[str, str | None]) -> Path | None:
    """The folder of a dataset that is read from one; None for a dataset that needs none.

    Args:
        name: The dataset.
        data: Folders by dataset name, as configured.

    Raises:
        ConfigError: It needs a folder and none is configured.
    """
    if not dataset_info(name).from_folder:
        return None
    folder = data.get(name)
    if not folder:
        raise ConfigError([f"data.{name}: the folder of {name} is not known; write data.{name}=PATH"])
    return Path(folder)


def count_images(name: str, split: Split, data: Mapping[str, str | None]) -> int:
    """Images of a split: those in the folder where it decides and is known, else the complete set's.

    Raises:
        ConfigError: The folder is not there or not right.
    """
    info = dataset_info(name)
    if not info.any_size or not data.get(name):
        return info.num_images[split]
    return cast(int, dataset_module(name).count(split, data_folder(name, data)))


def load_images(name: str, split: Split, data: Mapping[str, str | None] | None = None) -> Images:
    """One split of a dataset, opened; a tree of files is listed here and its images are read later.

    Args:
        name: The dataset.
        split: Which images.
        data: Folders by dataset name.

    Raises:
        ConfigError: Unknown name, or the folder is not there or not right.
        DataError: What was read is not bytes of the shape and range of its entry, or labels are out of range.
    """
    info = dataset_info(name)
    images = cast(Images, dataset_module(name).open_split(split, data_folder(name, data or {})))
    expected = info.num_images[split]
    if not info.any_size and len(images.labels) != expected:
        raise ConfigError([f"data.{name}: {len(images.labels)} {split} images, expected {expected}"])
    _check_content(images, info, split)
    return images


def open_files(name: str, paths: Sequence[Path]) -> Images:
    """Image files, not read yet, as images of a dataset: cut and scaled like those of its trees. Labels are 0."""
    from jobs.datasets._tree_images import TreeImages

    info, tree = dataset_info(name), getattr(dataset_module(name), "TREE", None)
    return TreeImages(
        name=name,
        image_shape=info.image_shape,
        view="exact" if tree is None else tree.view,
        root=Path(),
        paths=tuple(map(str, paths)),
        labels=np.zeros(len(paths), dtype=np.int64),
        num_levels=info.num_levels,
    )


def _check_content(images: Images, info: DatasetInfo, split: Split) -> None:
    """Raise DataError unless images are what ``Images`` promises: wrong ones would be certified all the same."""
    where, labels = f"{info.name}, {split} split", images.labels
    problems = []
    if labels.ndim != 1 or labels.dtype != np.int64:
        problems.append(f"labels must be int64 of shape (N,), they are {labels.dtype} of shape {labels.shape}")
    elif labels.size and not (labels.min() >= 0 and labels.max() < info.num_classes):
        problems.append(
            f"labels must lie in 0 to {info.num_classes - 1}, they reach from {labels.min()} to {labels.max()}"
        )
    if images.num_levels != info.num_levels:
        problems.append(f"num_levels is {images.num_levels}, its entry says {info.num_levels}")
    if isinstance(images, ArrayImages):
        problems += _level_problems(images.levels, len(labels), info)
    if problems:
        raise DataError("\n".join(f"{where}: {problem}" for problem in problems))


def _level_problems(levels: npt.NDArray[Any], num_images: int, info: DatasetInfo) -> Iterator[str]:
    if levels.shape != (num_images, *info.image_shape):
        yield f"pixels have shape {levels.shape}, expected {(num_images, *info.image_shape)} as (N, C, H, W)"
    if levels.dtype != np.uint8:
        looks = np.issubdtype(levels.dtype, np.floating) and levels.size and levels.min() >= 0 and levels.max() <= 1
        scaled = f": they look like pixels in [0, 1]; multiply by {info.num_levels} and round" if looks else ""
        yield f"pixels must be uint8 from 0 to {info.num_levels}, they are {levels.dtype}{scaled}"
    elif levels.size and levels.max() > info.num_levels:
        yield f"pixels must lie in 0 to {info.num_levels}, the largest is {levels.max()}"


@functools.cache
def _names() -> tuple[str, ...]:
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")))
