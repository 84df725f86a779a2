"""Registry of datasets: one module each, named as the dataset.

A module defines ``INFO``, a ``DatasetInfo``, and ``load(split) -> Images``. It must import cheaply
(no torch; heavy libraries inside ``load``), since the login node reads ``INFO`` to check a grid.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from jobs.errors import ConfigError
from jobs.validation import unknown_choice

Split = Literal["train", "test"]


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What can be known of a dataset without reading it.

    Attributes:
        name: The registry's name.
        num_classes: K.
        image_shape: (C, H, W).
        mean: Channel means of the training images in [0, 1], for the normalisation layer.
        std: Channel standard deviations, likewise.
        num_images: Images per split.
    """

    name: str
    num_classes: int
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_images: Mapping[Split, int]


@dataclass(frozen=True, eq=False)
class Images:
    """One split in memory.

    Attributes:
        inputs: Pixels in [0, 1], float32, shape (N, C, H, W).
        labels: Classes, int64, shape (N,).
    """

    inputs: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


def dataset_names() -> list[str]:
    """The names of all datasets, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def dataset_info(name: str) -> DatasetInfo:
    """The entry of one dataset. Raises ConfigError naming the valid ones."""
    if name not in dataset_names():
        raise ConfigError([unknown_choice("dataset", name, dataset_names())])
    return cast(DatasetInfo, importlib.import_module(f"{__name__}.{name}").INFO)


def load_images(name: str, split: Split) -> Images:
    """One split of a dataset. Raises ConfigError for an unknown name."""
    info = dataset_info(name)
    images = cast(Images, importlib.import_module(f"{__name__}.{name}").load(split))
    assert images.inputs.shape == (info.num_images[split], *info.image_shape)
    return images
