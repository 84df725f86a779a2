"""torchvision's ResNet-50: 25.6 million parameters and 4.1 G multiply-adds an image of 224 x 224.

The network of the paper's ImageNet results.
"""

from __future__ import annotations

from torch import nn

from jobs.datasets import DatasetInfo


def build(info: DatasetInfo) -> nn.Module:
    """The network, with random weights."""
    from torchvision.models import resnet50

    network: nn.Module = resnet50(weights=None, num_classes=info.num_classes)
    return network
