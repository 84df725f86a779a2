"""torchvision's ResNet-50: 25.6 million parameters and 4.1 G multiply-adds an image of 224 x 224.

The network of the paper's ImageNet results.
"""

from torch import nn

from jobs.datasets import DatasetInfo
from jobs.errors import ConfigError


def build(info: DatasetInfo) -> nn.Module:
    """The network, with random weights. Raises ConfigError unless the images have three channels."""
    if info.image_shape[0] != 3:
        given = f"those of {info.name} have {info.image_shape[0]}"
        raise ConfigError(f"resnet50 takes images of 3 channels, and {given}; choose another with model=NAME")
    from torchvision.models import resnet50

    network: nn.Module = resnet50(weights=None, num_classes=info.num_classes)
    return network
