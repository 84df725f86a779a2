"""ResNet-110 for 32 x 32 images: 1.73 million parameters and 0.25 G multiply-adds an image.

The network of the paper's CIFAR-10 results.
"""

from functools import partial

from jobs.architectures._cifar_resnet import CifarResNet

build = partial(CifarResNet, 110)
