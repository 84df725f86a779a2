"""ResNet-20 for 32 x 32 images: 272,000 parameters and 0.04 G multiply-adds an image."""

from functools import partial

from jobs.architectures._cifar_resnet import CifarResNet

build = partial(CifarResNet, 20)
