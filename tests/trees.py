"""Small trees of image files, made from nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

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
