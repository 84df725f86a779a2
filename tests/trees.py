"""Small trees of image files, made from nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jobs.datasets import Images
from jobs.datasets._tree import Tree

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def make_tree(
    folder: Path,
    *,
    per_class: dict[str, int],
    size: tuple[int, int] = (32, 32),
    classes: tuple[str, ...] = CLASSES,
    suffix: str = ".png",
) -> Path:
    """A tree that ``cifar10_images`` takes: each class has its own colour, with noise on it.

    Args:
        folder: Where to make it.
        per_class: Images of each class by name of the split's folder.
        size: Width and height.
        classes: Names of the class folders.
        suffix: Of the files; decides on their format.
    """
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, size=(len(classes), 3))
    for split, count in per_class.items():
        for class_name, colour in zip(classes, colours, strict=True):
            (folder / split / class_name).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(colour + random.normal(0, 40, size=(size[1], size[0], 3)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / class_name / f"{number:04d}{suffix}")
    return folder


def of_any_size(tree: Tree, **entry: Any) -> Tree:
    """A tree that takes any number of images, with changes to its entry."""
    return replace(tree, info=replace(tree.info, **{"any_size": True, **entry}))


def inputs_of(images: Images) -> np.ndarray[Any, np.dtype[np.float32]]:
    """All images in [0, 1], float32, shape (N, C, H, W)."""
    return images.pixels().astype(np.float32) / np.float32(images.num_levels)
