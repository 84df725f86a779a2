"""ImageNet (ILSVRC 2012): 1.28 million images in 1,000 classes, from train/ and val/ below a folder.

val/ must be sorted into class folders as train/ is. Test images are resized to 256 on the shorter
side and cut to the centre 224 x 224.

Source: Russakovsky et al. 2015. Transforms and normalisation: Cohen et al. 2019.
"""

from jobs.datasets import DatasetInfo
from jobs.datasets._tree import Tree

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
TREE = Tree(info=INFO, view="centre", split_folders={"train": "train", "test": "val"}, option="data.imagenet")
check, is_prepared, prepare, open_split = TREE.check, TREE.is_prepared, TREE.prepare, TREE.open_split
