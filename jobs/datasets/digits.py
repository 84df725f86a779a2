"""scikit-learn's handwritten digits: 1,797 grey images of 8 x 8 pixels, shipped with the library.

Test set: the 500 images i with 7919 * i mod 1797 < 500; the other 1,297 are for training. 7919 and
1797 have no common factor, so the rule picks exactly 500, spread evenly over the writers, and does
not hang on any library's random numbers. Within each split images keep scikit-learn's order.

Source: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits (test part), UCI.
"""

from importlib.metadata import distribution
from pathlib import Path

import numpy as np

from jobs.datasets import ArrayImages, DatasetInfo, Split

INFO = DatasetInfo(
    name="digits",
    num_classes=10,
    image_shape=(1, 8, 8),
    mean=(0.305,),
    std=(0.376,),
    num_images={"train": 1297, "test": 500},
    num_levels=16,
)


def open_split(split: Split, folder: Path | None) -> ArrayImages:
    """One split; pixels are 0 to 16."""
    del folder  # it comes with the library
    # What load_digits reads; importing it would take half as long as importing torch.
    path = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    digits = np.loadtxt(str(path), delimiter=",", dtype=np.uint8)
    in_test = 7919 * np.arange(len(digits)) % 1797 < 500
    digits = digits[in_test if split == "test" else ~in_test]
    return ArrayImages(
        levels=digits[:, :64].reshape(-1, 1, 8, 8).copy(),
        labels=digits[:, 64].astype(np.int64),
        num_levels=INFO.num_levels,
    )
