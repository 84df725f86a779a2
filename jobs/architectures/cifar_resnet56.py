"""ResNet-56 for 32 x 32 images: 856,000 parameters and 0.13 G multiply-adds an image."""

from functools import partial

from jobs.architectures._cifar_resnet import CifarResNet

build = partial(CifarResNet, 56)
