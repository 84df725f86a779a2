"""Registry of datasets: one module each, named as the dataset.

A module defines ``INFO``, a ``DatasetInfo``, and ``open_split(split, folder) -> Images``. It must
import cheaply (no torch; heavy libraries inside functions), since the login node reads ``INFO`` to
check a grid. A dataset that is read from files (``INFO.from_folder``) also defines
``check(folder, needed)`` (the splits), ``is_prepared(folder, marks)`` and ``prepare(folder, marks)``; see
``jobs.prepare``. An image tree with one folder for each class needs no code but its ``INFO`` and
``TREE`` (``cifar10_images`` and ``imagenet`` are examples). A module whose name begins with an
underscore is shared code, not a dataset.

A data set of the user's own is a ``Plugin``, which says what the module of another one would.
"""

import functools
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from jobs.datasets._images import CONTENT as CONTENT
from jobs.datasets._images import ArrayImages as ArrayImages
from jobs.datasets._images import Augmentation as Augmentation
from jobs.datasets._images import DatasetInfo as DatasetInfo
from jobs.datasets._images import Images as Images
from jobs.datasets._images import Split as Split
from jobs.datasets._images import check_content
from jobs.datasets._images import differ as differ
from jobs.datasets._images import short_fingerprint as short_fingerprint
from jobs.datasets._own import OwnData
from jobs.datasets._tree_images import TreeImages
from jobs.errors import ConfigError
from jobs.plugins import Plugin
from jobs.validation import unknown_choice

Source = str | Plugin
"""A dataset: the name of a module here, or the user's own."""


@functools.cache
def dataset_names() -> tuple[str, ...]:
    """The names of all datasets, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")))


def dataset_module(source: Source) -> Any:
    """The module of a dataset, or its equivalent for the user's own. Raises ConfigError naming the valid ones."""
    if isinstance(source, Plugin):
        return OwnData(plugin=source)
    if source not in dataset_names():
        raise ConfigError(unknown_choice("dataset", source, dataset_names()))
    return importlib.import_module(f"{__name__}.{source}")


def dataset_info(source: Source) -> DatasetInfo:
    """The entry of one dataset. Raises ConfigError naming the valid ones."""
    return cast(DatasetInfo, dataset_module(source).INFO)


def data_folder(source: Source, data: Mapping[str, str | None]) -> Path | None:
    """The folder or file that a dataset is read from, as configured by name; None if it needs none.

    Raises ConfigError if it needs one and none is configured.
    """
    info = dataset_info(source)
    if not info.from_folder:
        return None
    folder = data.get(info.name)
    if not folder:
        raise ConfigError(f"data.{info.name}: the folder of {info.name} is not known; write data.{info.name}=PATH")
    return Path(folder)


def count_images(source: Source, split: Split, data: Mapping[str, str | None]) -> int:
    """The number of images of a split: of the folder if that may vary and is known, else of the complete dataset.

    Raises ConfigError if the folder is not there or not right.
    """
    info = dataset_info(source)
    if not info.any_size or not data.get(info.name):
        return info.num_images[split]
    return len(dataset_module(source).open_split(split, data_folder(source, data)).labels)


def load_images(source: Source, split: Split, data: Mapping[str, str | None] | None = None) -> Images:
    """One split of a dataset, opened; a tree of files is listed here and its images are read later.

    Raises:
        ConfigError: Unknown name, or the folder is not there or not right.
        DataError: What was read is not bytes of the shape and range of its entry, or labels are out of range.
    """
    info = dataset_info(source)
    images = cast(Images, dataset_module(source).open_split(split, data_folder(source, data or {})))
    expected = info.num_images[split]
    if not info.any_size and len(images.labels) != expected:
        raise ConfigError(f"data.{info.name}: {len(images.labels)} {split} images, expected {expected}")
    check_content(images, info, split)
    return images


def open_files(source: Source, paths: Sequence[Path]) -> Images:
    """Image files, not read yet, as images of a dataset: cut and scaled like those of its trees. Labels are 0."""
    info, tree = dataset_info(source), getattr(dataset_module(source), "TREE", None)
    return TreeImages(
        image_shape=info.image_shape,
        view="exact" if tree is None else tree.view,
        root=Path(),
        paths=tuple(map(str, paths)),
        labels=np.zeros(len(paths), dtype=np.int64),
        num_levels=info.num_levels,
    )
