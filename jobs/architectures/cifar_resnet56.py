"""ResNet-56 for 32 x 32 images: 856,000 parameters and 0.13 G multiply-adds an image."""

from __future__ import annotations

from torch import nn

from jobs.architectures._cifar_resnet import CifarResNet
from jobs.datasets import DatasetInfo


def build(info: DatasetInfo) -> nn.Module:
    """The network for images of 32 x 32 pixels or so."""
    return CifarResNet(56, info)
