"""Trees of image files: one folder for each split, in it one folder for each class.

Classes are numbered in the order of their folders' names, images in the order of class and file
name, as torchvision's ImageFolder does.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from jobs.atomic import read_json, write_json
from jobs.datasets._images import Split
from jobs.errors import ConfigError, DataError
from jobs.processes.cpus import num_cpus

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp", ".tif", ".tiff")
View = Literal["exact", "centre"]
"""How a file becomes an image of the dataset's size. exact: it has that size already. centre: the
shorter side is resized to 256/224 of it and the centre is cut out."""

_NAMED = 5  # how many files or classes a message names


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Where a tree has what.

    Attributes:
        name: The dataset.
        num_classes: How many class folders there must be.
        image_shape: (C, H, W) of the images it gives.
        view: How files become images of that shape.
        split_folders: Names of the splits' folders.
        num_images: Images that each split must have; None where any number will do.
    """

    name: str
    num_classes: int
    image_shape: tuple[int, int, int]
    view: View
    split_folders: Mapping[Split, str]
    num_images: Mapping[Split, int] | None = None

    def check(self, folder: Path) -> None:
        """Raise ConfigError unless both splits are there, with the same classes; decodes nothing."""
        problems = [
            f"data.{self.name}: no folder {folder / part}; data.{self.name}=PATH names the folder that holds "
            f"{' and '.join(self.split_folders.values())}"
            for part in self.split_folders.values()
            if not (folder / part).is_dir()
        ]
        if problems:
            raise ConfigError(problems)
        train, test = (_subfolders(folder / self.split_folders[split]) for split in ("train", "test"))
        where = f"data.{self.name}: {folder}"
        if train != test:
            problems.append(f"{where}: classes differ between the splits: {self._difference(train, test)}")
        elif len(train) != self.num_classes:
            problems.append(f"{where}: {len(train)} class folders, {self.name} has {self.num_classes} classes")
        if problems:
            raise ConfigError(problems)

    def list_files(self, split: Split, folder: Path) -> tuple[list[str], npt.NDArray[np.int64]]:
        """Paths of a split's images relative to its folder, and their classes.

        Raises:
            ConfigError: The tree is not right, a class has no image, or there are too many or too few.
        """
        self.check(folder)
        root = folder / self.split_folders[split]
        paths: list[str] = []
        labels: list[int] = []
        for label, class_name in enumerate(_subfolders(root)):
            with os.scandir(root / class_name) as entries:
                names = sorted(entry.name for entry in entries if entry.name.lower().endswith(SUFFIXES))
            if not names:
                raise ConfigError([f"data.{self.name}: no image in {root / class_name} ({', '.join(SUFFIXES)})"])
            paths += [f"{class_name}/{name}" for name in names]
            labels += [label] * len(names)
        if self.num_images is not None and len(paths) != self.num_images[split]:
            raise ConfigError(
                [f"data.{self.name}: {len(paths):,} images in {root}, {self.name} has {self.num_images[split]:,} there"]
            )
        return paths, np.asarray(labels, dtype=np.int64)

    def open_split(self, split: Split, folder: Path) -> TreeImages:
        """A split's images, not read yet."""
        paths, labels = self.list_files(split, folder)
        return TreeImages(tree=self, root=folder / self.split_folders[split], paths=tuple(paths), labels=labels)

    def is_prepared(self, folder: Path, marks: Path) -> bool:
        """Whether just these files were decoded once, all without an error."""
        mark = self._mark(marks)
        return mark.exists() and read_json(mark) == self._listing(folder)

    def prepare(self, folder: Path, marks: Path) -> None:
        """Decode every image once and write down that it was done. Raises DataError naming those broken."""
        for split in ("train", "test"):
            self.open_split(split, folder).check_all()
        write_json(self._mark(marks), self._listing(folder))

    def _mark(self, marks: Path) -> Path:
        return marks / f"{self.name}.json"

    def _listing(self, folder: Path) -> dict[str, Any]:
        splits: tuple[Split, ...] = ("train", "test")
        return {
            "folder": str(folder.resolve()),
            **{split: self.open_split(split, folder).fingerprint for split in splits},
        }

    def _difference(self, train: Sequence[str], test: Sequence[str]) -> str:
        texts = []
        for ours, theirs, split in ((train, test, "train"), (test, train, "test")):
            only = sorted(set(ours) - set(theirs))
            if only:
                more = f" and {len(only) - _NAMED} more" if len(only) > _NAMED else ""
                texts.append(f"only in {self.split_folders[split]}: {', '.join(only[:_NAMED])}{more}")  # type: ignore[index]
        return "; ".join(texts)


@dataclass(frozen=True, kw_only=True, eq=False)
class TreeImages:
    """One split of a tree; images are decoded when they are asked for.

    Attributes:
        tree: The tree's description.
        root: The split's folder.
        paths: Files below it.
        labels: Classes, int64, shape (N,).
    """

    tree: Tree
    root: Path
    paths: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    num_levels: int = 255

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join(self.paths).encode()).hexdigest()[:16]

    @property
    def inputs(self) -> npt.NDArray[np.float32]:
        scaled: npt.NDArray[np.float32] = self.pixels().astype(np.float32) / np.float32(self.num_levels)
        return scaled

    def image(self, index: int) -> npt.NDArray[np.float32]:
        image: npt.NDArray[np.float32] = self.levels(index).astype(np.float32) / np.float32(self.num_levels)
        return image

    def pixels(self) -> npt.NDArray[np.uint8]:
        found = np.empty((len(self.paths), *self.tree.image_shape), dtype=np.uint8)

        def decode(index: int) -> None:
            found[index] = self.levels(index)

        self._each(decode)
        return found

    def check_all(self) -> None:
        """Decode every image. Raises DataError naming those that cannot be."""
        self._each(self.levels)

    def levels(self, index: int) -> npt.NDArray[np.uint8]:
        """One image as it is certified, uint8, shape (C, H, W). Raises DataError naming the file."""
        image = self.decoded(index)
        _, height, width = self.tree.image_shape
        if self.tree.view == "centre":
            image = _centre(image, height, width)
        if image.size != (width, height):
            raise DataError(f"{self.path(index)}: {image.width} x {image.height} pixels, expected {width} x {height}")
        return np.asarray(image).transpose(2, 0, 1)

    def decoded(self, index: int) -> Image:
        """The file as an RGB image. Raises DataError naming it."""
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(self.path(index)) as file:
                return file.convert("RGB")
        except FileNotFoundError as error:
            raise DataError(f"{self.path(index)}: not there any more") from error
        except (OSError, SyntaxError, UnidentifiedImageError) as error:  # SyntaxError: Pillow's for broken PNG
            raise DataError(f"{self.path(index)}: broken image, cannot be decoded ({error})") from error

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self.root / self.paths[index]

    def _each(self, act: Any) -> None:
        """Act on every index in threads (decoding leaves Python's lock), gathering the errors."""

        def attempt(index: int) -> str | None:
            try:
                act(index)
            except DataError as error:
                return str(error)
            return None

        with ThreadPoolExecutor(max_workers=num_cpus()) as pool:
            problems = [problem for problem in pool.map(attempt, range(len(self.paths)), chunksize=64) if problem]
        if problems:
            more = [f"and {len(problems) - _NAMED} more"] if len(problems) > _NAMED else []
            raise DataError("\n".join([*problems[:_NAMED], *more]))


def _centre(image: Image, height: int, width: int) -> Image:
    from PIL.Image import Resampling

    # The paper's transform: Resize(256), then CenterCrop(224), here for any size in that ratio.
    shorter, longer = max(height, width) * 256 // 224, max(image.size) / min(image.size)
    other = int(shorter * longer)
    size = (shorter, other) if image.width <= image.height else (other, shorter)
    resized = image.resize(size, Resampling.BILINEAR)
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return resized.crop((left, top, left + width, top + height))


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
