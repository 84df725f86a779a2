"""A small convolutional net for 8 x 8 digits: two strided convolutions and a linear layer.

About 22,000 parameters and 0.18 MFLOP an image: one CPU core classifies some 200,000 noisy digits
a second, which is what lets a laptop certify a whole grid in minutes.
"""

from torch import nn

from jobs.datasets import DatasetInfo


def build(info: DatasetInfo) -> nn.Module:
    """The network for images whose height and width are multiples of 4."""
    channels, height, width = info.image_shape
    return nn.Sequential(
        nn.Conv2d(channels, 32, kernel_size=3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 64, kernel_size=3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(64 * (height // 4) * (width // 4), info.num_classes),
    )
