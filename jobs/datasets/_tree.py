"""Trees of image files: one folder for each split, in it one folder for each class.

Classes are numbered in the order of their folders' names, images in the order of class and file
name, as torchvision's ImageFolder does.
"""

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jobs.atomic import read_json, write_json
from jobs.datasets._images import SPLITS, DatasetInfo, Split
from jobs.datasets._tree_images import TreeImages, View
from jobs.errors import ConfigError
from jobs.wording import some

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp", ".tif", ".tiff")
_NO_CLASSES = {"lost+found", "__MACOSX", "@eaDir"}  # folders that file systems and tools make


@dataclass(frozen=True, kw_only=True)
class Tree:
    """The layout of a tree of images."""

    info: DatasetInfo  # the dataset's entry
    view: View  # how files become images of its shape
    split_folders: Mapping[Split, str]  # names of the splits' folders
    option: str  # what names its folder, to begin messages

    def check(self, folder: Path, needed: Sequence[Split] = ("train", "test")) -> None:
        """Raise ConfigError unless the splits that are needed are there, and those there have the same classes.

        Decodes nothing.
        """
        there = self._there(folder)
        missing = [split for split in (needed if there else SPLITS) if split not in there]
        if missing:
            hint = self._hint(folder)
            raise ConfigError(
                [
                    f"{self.option}: no folder {folder / self.split_folders[split]}; {self.option}=PATH names "
                    f"the folder that holds {' and '.join(self.split_folders.values())}{hint}"
                    for split in missing
                ]
            )
        where, classes = f"{self.option}: {folder}", [self._classes(folder / self.split_folders[one]) for one in there]
        only = [{*classes[0]} - {*classes[-1]}, {*classes[-1]} - {*classes[0]}]
        if any(only):
            shown = "; ".join(
                f"only in {self.split_folders[split]}: {some(sorted(names), most=5)}"
                for split, names in zip(SPLITS, only, strict=True)
                if names
            )
            raise ConfigError(f"{where}: classes differ between the splits: {shown}")
        if len(classes[0]) != self.info.num_classes:
            raise ConfigError(
                f"{where}: {len(classes[0])} class folders, but {self.info.name} has {self.info.num_classes} classes"
            )

    def _classes(self, root: Path) -> list[str]:
        """The class folders of a split, in the order of their labels."""
        names = subfolders(root)
        if not names and (images := [name for name in os.listdir(root) if name.lower().endswith(SUFFIXES)]):
            raise ConfigError(
                f"{self.option}: {root} is flat: {len(images):,} images and no class folders, so the labels are "
                "unknown; sort them into one folder per class, named as in the other split"
            )
        if names and all(name.isdecimal() for name in names) and len({len(name) for name in names}) > 1:
            raise ConfigError(
                f"{self.option}: the class folders of {root} are numbers of different lengths ({names[0]}, "
                f"{names[1]}, ...), which sort as text: {sorted(names, key=int)[-1]} would not be the last class. "
                "Rename them with leading zeros, or to their class names"
            )
        return names

    def _hint(self, folder: Path) -> str:
        """Where the splits are, if they are one level up or down, or have another name."""
        parts = set(self.split_folders.values())
        if folder.name in parts and folder.is_dir():
            return f". This is one of them: write {self.option}={folder.parent}"
        inner = [name for name in subfolders(folder) if parts & set(subfolders(folder / name))]
        if len(inner) == 1:
            return f". They are in {folder / inner[0]}"
        known = {"validation", "valid", "val", "test", "training"} - parts
        if others := sorted(known & set(subfolders(folder))):
            return f"; there is {folder / others[0]}: rename it"
        return ""

    def list_files(self, split: Split, folder: Path) -> tuple[list[str], npt.NDArray[np.int64]]:
        """Paths of a split's images relative to its folder, and their classes; raises as ``check``, which it does."""
        self.check(folder, (split,))
        root = folder / self.split_folders[split]
        paths: list[str] = []
        labels: list[int] = []
        for label, class_name in enumerate(subfolders(root)):
            with os.scandir(root / class_name) as entries:
                names = sorted(entry.name for entry in entries if entry.name.lower().endswith(SUFFIXES))
            if not names:
                deeper = "; it contains folders instead" if subfolders(root / class_name) else ""
                raise ConfigError(f"{self.option}: no image in {root / class_name} ({', '.join(SUFFIXES)}){deeper}")
            paths += [f"{class_name}/{name}" for name in names]
            labels += [label] * len(names)
        if not self.info.any_size and len(paths) != (expected := self.info.num_images[split]):
            raise ConfigError(
                f"{self.option}: {len(paths):,} images in {root}, but {self.info.name} has {expected:,} there"
            )
        return paths, np.asarray(labels, dtype=np.int64)

    def open_split(self, split: Split, folder: Path | None) -> TreeImages:
        """A split's images, which are decoded on access."""
        assert folder is not None
        paths, labels = self.list_files(split, folder)
        root = folder / self.split_folders[split]
        return TreeImages(
            image_shape=self.info.image_shape, view=self.view, root=root, paths=tuple(paths), labels=labels
        )

    def is_prepared(self, folder: Path, marks: Path) -> bool:
        """Whether exactly these files were decoded before, all without an error."""
        mark = self._mark(marks)
        if not mark.exists() or read_json(mark) != self._listing(folder):
            return False
        # Otherwise every worker would read all images to compute it.
        return "test" not in self._there(folder) or self.open_split("test", folder).kept_fingerprint() is not None

    def prepare(self, folder: Path, marks: Path) -> None:
        """Decode every image once and record this. Raises DataError naming the broken ones."""
        for split in self._there(folder):
            logging.info("%s images have fingerprint %s", split, self.open_split(split, folder).check_all())
        write_json(self._mark(marks), self._listing(folder))

    def _mark(self, marks: Path) -> Path:
        return marks / f"{self.info.name}.json"

    def _listing(self, folder: Path) -> dict[str, str]:
        found = {"folder": str(folder.resolve())}
        for split in self._there(folder):
            names = "\n".join(self.list_files(split, folder)[0])
            found[split] = hashlib.sha256(names.encode()).hexdigest()[:16]
        return found

    def _there(self, folder: Path) -> list[Split]:
        """The splits that the folder has: to certify, one is enough."""
        return [split for split in SPLITS if (folder / self.split_folders[split]).is_dir()]


def subfolders(folder: Path) -> list[str]:
    """The folders in a folder that may be classes, sorted; none where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name for name in names if not name.startswith(".") and name not in _NO_CLASSES)
