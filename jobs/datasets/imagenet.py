"""ImageNet (ILSVRC 2012): 1.28 million images in 1,000 classes, from train/ and val/ below a folder.

val/ must be sorted into class folders as train/ is. Test images are resized to 256 on the shorter
side and cut to the centre 224 x 224.

Source: Russakovsky et al. 2015. Transforms and normalisation: Cohen et al. 2019.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from jobs.datasets import DatasetInfo, Split
from jobs.datasets._tree import Tree, TreeImages

INFO = DatasetInfo(
    name="imagenet",
    num_classes=1000,
    image_shape=(3, 224, 224),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    num_images={"train": 1_281_167, "test": 50_000},
    augmentation="resized_crop_flip",
    from_folder=True,
)
TREE = Tree(
    name=INFO.name,
    num_classes=INFO.num_classes,
    image_shape=INFO.image_shape,
    view="centre",
    split_folders={"train": "train", "test": "val"},
    num_images=INFO.num_images,
)
check, is_prepared, prepare = TREE.check, TREE.is_prepared, TREE.prepare


def open_split(split: Split, folder: Path | None) -> TreeImages:
    """One split; images are decoded when they are asked for."""
    return TREE.open_split(split, cast(Path, folder))
