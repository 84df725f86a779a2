"""ResNet-110 for 32 x 32 images: 1.73 million parameters and 0.25 G multiply-adds an image.

The network of the paper's CIFAR-10 results.
"""

from __future__ import annotations

from torch import nn

from jobs.architectures._cifar_resnet import CifarResNet
from jobs.datasets import DatasetInfo


def build(info: DatasetInfo) -> nn.Module:
    """The network for images of 32 x 32 pixels or so."""
    return CifarResNet(110, info)
