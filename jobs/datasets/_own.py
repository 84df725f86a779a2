"""Data sets that are no module here: an .npz file, a folder of images, or a function of a plug-in.

Keys hold what they give, with a fingerprint of it, and not where it lies: a copy elsewhere is the same data set,
and a changed file is another one.
"""

import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.datasets._images import SPLITS, ArrayImages, Augmentation, DatasetInfo, Images, Split, check_content
from jobs.datasets._tree import Tree, subfolders
from jobs.errors import ConfigError, DataError, refuse
from jobs.plugins import Plugin, loading
from jobs.validation import unknown_choice

_ARRAYS = (("x_{}", "y_{}"), ("{}_images", "{}_labels"))  # of an .npz file, as Keras and MedMNIST name them
_FOLDERS: Mapping[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "test": ("test", "val", "valid", "validation"),
}
_AUGMENTATIONS = ("none", "crop_flip")  # of images of one size
_MAX_BYTES = 2**34
"""Of the arrays of an .npz file, unpacked: they are kept in memory."""


@dataclass(frozen=True, kw_only=True)
class OwnData:
    """The equivalent of a module of ``jobs.datasets``, for a data set that was ``described``."""

    plugin: Plugin

    @cached_property
    def INFO(self) -> DatasetInfo:  # noqa: N802  # as in a module
        values = {name: value for name, value in self.plugin.options.items() if name != "fingerprints"}
        shapes = {name: tuple(values[name]) for name in ("image_shape", "mean", "std")}
        return DatasetInfo(name=self.plugin.label, from_folder=not self.plugin.is_own, **{**values, **shapes})

    def check(self, folder: Path, needed: Sequence[Split]) -> None:
        """Raise ConfigError unless it has the images of the splits that are needed."""
        refuse(f"{folder}: has no {split} images" for split in needed if not self.INFO.num_images[split])

    def open_split(self, split: Split, folder: Path | None) -> Images:
        """One split. Raises DataError if it has changed since its key was made."""
        images = _opened(self.plugin.name, split, folder)
        expected, found = self.plugin.options["fingerprints"].get(split), images.fingerprint if images else None
        if images is None or found != expected:
            raise DataError(
                f"{folder or self.plugin.name}: its {split} images have fingerprint {found}, but had {expected} at the "
                "launch; restore them, or launch again to train new models"
            )
        return images


def described(source: str, version: int, options: Mapping[str, Any]) -> Plugin:
    """The description of a data set in keys; reads and checks all its images.

    Args:
        source: ``npz:PATH``, ``folder:PATH``, or ``module:function`` of a plug-in.
        version: Of the plug-in.
        options: ``augmentation`` of training images.

    Raises:
        ConfigError: There are no such images, or they cannot be used as they are; with all problems.
    """
    augmentation = options.get("augmentation", "none")
    problems = [unknown_choice("option", name, ["augmentation"]) for name in options if name != "augmentation"]
    if augmentation not in _AUGMENTATIONS:
        problems.append(unknown_choice("augmentation", augmentation, _AUGMENTATIONS))
    if problems:
        raise ConfigError([f"{source}: {problem}" for problem in problems])
    kind, _, place = source.partition(":")
    folder = Path(place) if kind in _READERS else None
    name = ":".join([kind, re.sub(r"\W+", "_", folder.resolve().stem).lower()]) if folder else source
    try:
        opened = {split: _opened(source, split, folder) for split in SPLITS}
        found = {split: images for split, images in opened.items() if images is not None and len(images.labels)}
        if missing := [split for split in SPLITS if split not in found and (split == "test" or folder is None)]:
            raise ConfigError(f"{source}: has no {missing[0]} images")  # to certify, a file or folder needs no others
        entry = _entry(found, augmentation)
        info = DatasetInfo(name=name.partition(":")[2].lower(), **entry)
        for split, images in found.items():
            check_content(images, info, split)
            _check_brightness(images)
        fingerprints = {split: images.fingerprint for split, images in found.items()}
        for split in fingerprints if folder is None else ():
            if (again := _opened(source, split, folder)) is None or again.fingerprint != fingerprints[split]:
                raise ConfigError(f"{source}: returned other {split} images when it was called again")
    except DataError as error:
        raise ConfigError([f"{source}: {line}" for line in str(error).splitlines()]) from error
    classes = set(np.concatenate([images.labels for images in found.values()]).tolist())
    if info.num_classes < 2 or (empty := sorted(set(range(info.num_classes)) - classes)):
        problem = f"there is no image of class {empty[0]}" if info.num_classes > 1 else "there is only one class"
        raise ConfigError(f"{source}: {problem}; labels are 0, 1, ... without gaps, and at least two")
    return Plugin(name=name, version=version, options={**entry, "fingerprints": fingerprints})


def _check_brightness(images: Images) -> None:
    """Raise DataError if no pixel is brighter than a fifteenth: levels of 0 to 1 or 0 to 16, taken for 0 to 255."""
    if isinstance(images, ArrayImages) and (largest := int(images.levels.max())) * 15 < images.num_levels:
        raise DataError(f"the largest pixel is {largest}, but white is {images.num_levels}; scale the images")


def _entry(found: Mapping[Split, Images], augmentation: Augmentation) -> dict[str, Any]:
    """The fields of a data set's ``DatasetInfo`` that keys hold."""
    first = found["test"]
    shape = first.levels.shape[1:] if isinstance(first, ArrayImages) else getattr(first, "image_shape", ())
    if len(shape) != 3:
        raise DataError(f"images have shape {shape}, expected (H, W), (H, W, C) or (C, H, W)")
    labels = [images.labels for images in found.values()]
    return {
        "num_classes": 1 + max(int(own.max()) for own in labels),
        "image_shape": shape,
        "mean": (0.5,) * shape[0],
        "std": (0.5,) * shape[0],
        "num_images": {split: len(found[split].labels) if split in found else 0 for split in SPLITS},
        "num_levels": first.num_levels,
        "augmentation": augmentation,
    }


def _opened(source: str, split: Split, folder: Path | None) -> Images | None:
    """A split as it is now; None if it does not exist."""
    kind = source.partition(":")[0]
    if kind in _READERS:
        assert folder is not None
        return _READERS[kind](folder, split)
    images = loading.load(source)(split)
    if not isinstance(images, ArrayImages):
        raise ConfigError(f"{source}: must return jobs.datasets.ArrayImages, not {type(images).__name__}")
    if not all(isinstance(array, np.ndarray) for array in (images.levels, images.labels)):
        raise ConfigError(f"{source}: levels and labels must be arrays of numpy")
    return images


def _read_npz(path: Path, split: Split) -> ArrayImages | None:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > _MAX_BYTES:
            raise ConfigError(f"{path}: {size / 2**30:.0f} GB unpacked, at most {_MAX_BYTES / 2**30:.0f} are read")
        with np.load(path, allow_pickle=False) as arrays:
            for images, labels in ((one.format(split), other.format(split)) for one, other in _ARRAYS):
                if images in arrays and labels in arrays:
                    return ArrayImages(levels=_channels_first(arrays[images]), labels=_flat(arrays[labels]))
            if not any(one.format("test") in arrays for one, _ in _ARRAYS):
                raise ConfigError(f"{path}: contains {', '.join(arrays)}; expected x_train, y_train, x_test and y_test")
            return None
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:  # ValueError: objects, or a wrong header
        raise ConfigError(f"{path}: not a valid .npz file ({error})") from error


def _channels_first(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(N, H, W), (N, H, W, C) or (N, C, H, W) as (N, C, H, W), C being 1 or 3."""
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[-1] in (1, 3):
        return np.ascontiguousarray(np.moveaxis(images, -1, 1))
    return images


def _flat(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Whole numbers of any type, (N,) or (N, 1), as int64 of (N,); anything else as it is."""
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    return flat.astype(np.int64) if np.issubdtype(flat.dtype, np.integer) else flat


def _read_folder(folder: Path, split: Split) -> Images | None:
    there = subfolders(folder)
    if not there:
        raise ConfigError(f"{folder}: contains no folders; expected train/CLASS/... and test/CLASS/...")
    names = {one: next((name for name in known if name in there), known[0]) for one, known in _FOLDERS.items()}
    if names[split] not in there:
        return None
    info = DatasetInfo(
        name=str(folder),
        num_classes=len(subfolders(folder / names[split])),
        image_shape=(3, 1, 1),
        mean=(),
        std=(),
        num_images={},
        any_size=True,
    )
    tree = Tree(info=info, view="exact", split_folders=names, option=f"folder:{folder}")
    images = tree.open_split(split, folder)
    width, height = images.decoded(0).size  # all others must have it, too
    return replace(images, image_shape=(3, height, width))


_READERS = {"npz": _read_npz, "folder": _read_folder}
