"""CIFAR-10: 60,000 colour images of 32 x 32 pixels in ten classes, by torchvision.

Prepared once by downloading it to ``data.cifar10`` (torchvision checks its checksums), or by putting
the archive or the unpacked ``cifar-10-batches-py`` there; that folder itself can be named as well.
Images keep the order of the dataset's own files, so that "every 20th test image" means the same 500
images as in the papers.

Source: Krizhevsky 2009. Normalisation and augmentation: Cohen et al. 2019.
"""

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from jobs.atomic import read_json, write_json
from jobs.datasets import ArrayImages, DatasetInfo, Split
from jobs.errors import ConfigError, DataError
from jobs.wording import say

INFO = DatasetInfo(
    name="cifar10",
    num_classes=10,
    image_shape=(3, 32, 32),
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
    num_images={"train": 50_000, "test": 10_000},
    augmentation="crop_flip",
    from_folder=True,
    class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)

_PATIENCE_S = 15.0
_FILES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]


def check(folder: Path, needed: Sequence[Split] = ("train", "test")) -> None:
    """Raise ConfigError if a file is in the place of the folder, into which ``prepare`` downloads what is not there."""
    del needed  # all splits exist or none
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise ConfigError(f"data.cifar10: {nearest} is not a folder; choose another path with data.cifar10=PATH")


def is_prepared(folder: Path, marks: Path) -> bool:
    """Whether exactly these files were verified before, by their sizes and times."""
    try:
        return bool(read_json(marks / f"{INFO.name}.json") == _listing(folder))
    except (OSError, ValueError):
        return False


def prepare(folder: Path, marks: Path) -> None:
    """Download missing or damaged files, under a lock, verify checksums, and record this. Raises DataError."""
    import http.client
    import urllib.request

    root, cifar = _opened(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / ".cifar10.lock") if os.access(folder, os.W_OK) else contextlib.nullcontext():
        try:
            if not _is_there(root, cifar):
                say(f"note: downloading CIFAR-10 (170 MB) from {cifar.url} to {root}", sys.stderr)
                # Torchvision would try for minutes, in silence.
                urllib.request.urlopen(cifar.url, timeout=_PATIENCE_S).close()
            cifar(str(root), download=True)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            raise DataError(
                f"{folder}: CIFAR-10 cannot be downloaded or is damaged ({error}); on a machine without a network "
                f"put cifar-10-python.tar.gz into {folder} and launch again"
            ) from error
    write_json(marks / f"{INFO.name}.json", _listing(folder))


def _is_there(root: Path, cifar: Any) -> bool:
    """Whether the files, or the archive that contains them, exist and are valid."""
    from torchvision.datasets.utils import check_integrity

    try:
        cifar(str(root))
    except (OSError, RuntimeError):
        return bool(check_integrity(root / cifar.filename, cifar.tgz_md5))
    return True


def open_split(split: Split, folder: Path | None) -> ArrayImages:
    """One split, after verifying its checksums again. Raises DataError if files are missing or damaged."""
    assert folder is not None
    root, cifar = _opened(folder)
    try:
        dataset = cifar(str(root), train=split == "train", download=False)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{folder}: CIFAR-10 is missing or damaged; run python -m jobs.prepare cifar10 {folder}"
        ) from error
    return ArrayImages(
        levels=np.ascontiguousarray(dataset.data.transpose(0, 3, 1, 2)),
        labels=np.asarray(dataset.targets, dtype=np.int64),
    )


def _files_in(folder: Path) -> Path:
    """Where the dataset's files are; in the folder itself if it is the unpacked archive."""
    return folder if (folder / _FILES[0]).is_file() else folder / "cifar-10-batches-py"


def _opened(folder: Path) -> tuple[Path, Any]:
    """The arguments for torchvision: a folder, and the class that reads its files."""
    from torchvision.datasets import CIFAR10

    files = _files_in(folder)
    return files.parent, type("CIFAR10", (CIFAR10,), {"base_folder": files.name})


def _listing(folder: Path) -> dict[str, Any]:
    files = _files_in(folder).resolve()
    status = {name: (files / name).stat() for name in _FILES}
    return {"folder": str(files), "files": {name: [own.st_size, own.st_mtime_ns] for name, own in status.items()}}
