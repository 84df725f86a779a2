"""CIFAR-10 as a tree of image files: train/<class>/... and test/<class>/..., 32 x 32 pixels.

For machines that have the images but not the original archive. The order within the test set is
that of class and file name and not CIFAR-10's, and copies that went through JPEG have other pixels:
numbers come close to those of ``cifar10`` and are not the same. The tree may be a part of the
dataset, as long as all ten classes are there.
"""

from jobs.datasets import DatasetInfo, cifar10
from jobs.datasets._tree import Tree

INFO = DatasetInfo(
    name="cifar10_images",
    num_classes=10,
    image_shape=(3, 32, 32),
    mean=cifar10.INFO.mean,
    std=cifar10.INFO.std,
    num_images=cifar10.INFO.num_images,
    augmentation="crop_flip",
    from_folder=True,
    any_size=True,
    class_names=cifar10.INFO.class_names,
)
TREE = Tree(info=INFO, view="exact", split_folders={"train": "train", "test": "test"}, option="data.cifar10_images")
check, is_prepared, prepare, open_split = TREE.check, TREE.is_prepared, TREE.prepare, TREE.open_split
