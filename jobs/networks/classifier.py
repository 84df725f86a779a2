"""Classifiers of images in [0, 1]: normalisation is their first layer.

Noise is added before the normalisation (Cohen et al. 2019), so that sigma and radii are lengths in
pixel space whatever the dataset's statistics.
"""

from __future__ import annotations

import importlib

import torch
from torch import Tensor, nn

from jobs.architectures import architecture_names
from jobs.datasets import DatasetInfo
from jobs.errors import ConfigError
from jobs.specs.train import InputLayer
from jobs.validation import unknown_choice


class Normalize(nn.Module):
    """Subtracts the channel means and divides by the channel deviations."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, inputs_BCHW: Tensor) -> Tensor:
        return (inputs_BCHW - self.mean) / self.std


def input_statistics(input_layer: InputLayer, info: DatasetInfo) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The channel means and deviations with which a classifier's first layer normalises."""
    zeros, ones = (0.0,) * len(info.mean), (1.0,) * len(info.std)
    return zeros if input_layer == "none" else info.mean, info.std if input_layer == "normalize" else ones


class Classifier(nn.Module):
    """A network with its normalisation in front: inputs_BCHW in [0, 1] to logits_BK."""

    def __init__(self, normalize: Normalize, network: nn.Module) -> None:
        super().__init__()
        self.normalize = normalize
        self.network = network

    def forward(self, inputs_BCHW: Tensor) -> Tensor:
        logits: Tensor = self.network(self.normalize(inputs_BCHW))
        return logits


def build_classifier(architecture: str, info: DatasetInfo, input_layer: InputLayer = "normalize") -> Classifier:
    """A freshly initialised classifier for a dataset; weights come from torch's global generator.

    Raises:
        ConfigError: No architecture of that name.
    """
    if architecture not in architecture_names():
        raise ConfigError([unknown_choice("architecture", architecture, architecture_names())])
    module = importlib.import_module(f"jobs.architectures.{architecture}")
    return Classifier(Normalize(*input_statistics(input_layer, info)), module.build(info))
