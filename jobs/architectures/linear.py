"""A linear classifier: the one whose smoothed classifier, and certificates, are known in closed form."""

import math

from torch import nn

from jobs.datasets import DatasetInfo


def build(info: DatasetInfo) -> nn.Module:
    """Softmax regression on all pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(info.image_shape), info.num_classes))
