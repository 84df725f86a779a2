"""CIFAR-10: 60,000 colour images of 32 x 32 pixels in ten classes, by torchvision.

Prepared once by downloading it to ``data.cifar10`` (torchvision checks its checksums), or by
putting the archive there by hand. Images keep the order of the dataset's own files, so that "every
20th test image" means the same 500 images as in the papers.

Source: Krizhevsky 2009. Normalisation and augmentation: Cohen et al. 2019.
"""

from __future__ import annotations

from pathlib import Path

import filelock
import numpy as np

from jobs.datasets import ArrayImages, DatasetInfo, Split
from jobs.errors import ConfigError, DataError

INFO = DatasetInfo(
    name="cifar10",
    num_classes=10,
    image_shape=(3, 32, 32),
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
    num_images={"train": 50_000, "test": 10_000},
    augmentation="crop_flip",
    from_folder=True,
)

_FILES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]


def check(folder: Path) -> None:
    """What is not there is downloaded by ``prepare``, for which there must be room for a folder.

    Raises:
        ConfigError: A file is in its place.
    """
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise ConfigError([f"data.cifar10: {nearest} is not a folder; data.cifar10=PATH names one, there or not yet"])


def is_prepared(folder: Path, marks: Path) -> bool:
    """Whether the dataset's files are there."""
    del marks
    return all((folder / "cifar-10-batches-py" / name).is_file() for name in _FILES)


def prepare(folder: Path, marks: Path) -> None:
    """Download what is missing, under a lock, and verify checksums.

    Raises:
        DataError: It cannot be downloaded, or what is there is damaged.
    """
    del marks
    from torchvision.datasets import CIFAR10

    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / ".cifar10.lock"):
        try:
            CIFAR10(str(folder), download=True)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{folder}: CIFAR-10 cannot be downloaded or is damaged ({error}); on a machine without a network "
                f"put cifar-10-python.tar.gz into {folder} and launch again"
            ) from error


def open_split(split: Split, folder: Path | None) -> ArrayImages:
    """One split, from files that must be there already; checksums are verified again.

    Raises:
        DataError: They are not there or damaged.
    """
    from torchvision.datasets import CIFAR10

    try:
        dataset = CIFAR10(str(folder), train=split == "train", download=False)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{folder}: CIFAR-10 is not there or damaged; python -m jobs.prepare cifar10 {folder}"
        ) from error
    return ArrayImages(
        levels=np.ascontiguousarray(dataset.data.transpose(0, 3, 1, 2)),
        labels=np.asarray(dataset.targets, dtype=np.int64),
    )
