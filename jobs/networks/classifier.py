"""Classifiers of images in [0, 1]: normalisation is their first layer.

Noise is added before the normalisation (Cohen et al. 2019), so that sigma and radii are lengths in
pixel space whatever the dataset's statistics.
"""

import importlib
import sys
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from jobs.architectures import architecture_names
from jobs.datasets import DatasetInfo
from jobs.errors import ConfigError
from jobs.plugins import LIBRARIES, loading
from jobs.specs.train import InputLayer, TrainSpec
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


class Ensemble(nn.Module):
    """The mean of the logits of classifiers: inputs_BCHW in [0, 1] to logits_BK.

    Guarantee: In evaluation mode it is one function f of one image, and Theorem 1 of Cohen et al. 2019 asks no more
        of a base classifier: with f smoothed by N(0, sigma^2 I), P(f = c) >= p > 1/2 at x proves class c within
        sigma * ndtri(p). The certificate is as sound as that of any member. Averaging N logits divides the variance
        that independent trainings cause in their differences by up to N, which raises p.

    Source: Horváth, Müller, Fischer, Vechev 2022, Boosting Randomized Smoothing with Variance Reduced Classifiers,
        equation 4 (soft ensembles) and section 4.
    """

    def __init__(self, members: Iterable[Classifier]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, inputs_BCHW: Tensor) -> Tensor:
        logits_NBK = torch.stack([member(inputs_BCHW) for member in self.members])
        return logits_NBK.mean(dim=0)


class Denoised(nn.Sequential):
    """A classifier behind a frozen denoiser: noisy images_BCHW to logits_BK.

    Guarantee: The composition h(x) = f(D(x)) is a function of one image, and Theorem 1 of Cohen et al. 2019 holds for
        h in place of f: P(h(x + noise) = c) >= p > 1/2 proves class c within sigma * ndtri(p) of x, whatever D does.
        A poor denoiser costs accuracy and never soundness. f need not have seen noise.

    Source: Salman, Sun, Yang, Kapoor, Kolter 2020, Denoised Smoothing, section 3.1.
    """

    def __init__(self, denoiser: nn.Module, classifier: Classifier) -> None:
        super().__init__(OrderedDict(denoiser=denoiser, classifier=classifier))


@torch.inference_mode()
def is_finite_on_grey(classifier: Classifier, info: DatasetInfo) -> bool:
    """Whether a classifier's logits of a grey image are finite; sets evaluation mode."""
    grey_BCHW = torch.full((2, *info.image_shape), 0.5, device=classifier.normalize.mean.device)
    return bool(classifier.eval()(grey_BCHW).isfinite().all())


def classifier_for(spec: TrainSpec) -> Classifier:
    """The freshly initialised classifier of a training; as ``build_classifier``."""
    if spec.members:
        return _of_pixels(Ensemble(map(classifier_for, spec.members)), spec.info)
    options = {} if spec.model is None else spec.model.options
    return with_denoiser(build_classifier(spec.architecture, spec.info, spec.input_layer, options), spec)


def with_denoiser(classifier: Classifier, spec: TrainSpec) -> Classifier:
    """A classifier with the denoiser of a spec in front of it, if it has one; raises as ``build_classifier``."""
    if spec.denoiser is None:
        return classifier
    name = spec.denoiser.name
    with loading.errors_of(name):
        denoiser = loading.load(name)(spec.info, sigma=spec.sigma, **spec.denoiser.options)
    return _of_pixels(Denoised(_checked(denoiser, name).requires_grad_(False), classifier), spec.info)


def _of_pixels(network: nn.Module, info: DatasetInfo) -> Classifier:
    return Classifier(Normalize(*input_statistics("none", info)), network)


def _checked(network: object, name: str) -> nn.Module:
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{name}: returned {type(network).__name__}, expected a torch.nn.Module")
    return network


def build_classifier(
    architecture: str,
    info: DatasetInfo,
    input_layer: InputLayer = "normalize",
    options: Mapping[str, Any] | None = None,
) -> Classifier:
    """A freshly initialised classifier for a dataset; weights come from torch's global generator.

    ``architecture`` is a name in ``jobs.architectures``, ``timm:NAME``, ``torchvision:NAME``, or the
    ``module:function`` of a plug-in, whose module may say ``TAKES_PIXELS = True``. Only these others have ``options``.

    Raises:
        ConfigError: No architecture of that name, or it cannot be built so; with file and line.
    """
    library, _, name = architecture.partition(":")
    if not name and architecture not in architecture_names():
        raise ConfigError(unknown_choice("architecture", architecture, architecture_names()))
    with loading.errors_of(architecture):
        if not name:
            network = importlib.import_module(f"jobs.architectures.{architecture}").build(info)
        elif library in LIBRARIES:
            network = _of_library(library, name, info, dict(options or {}))
        else:
            build = loading.load(architecture)
            network = build(info, **(options or {}))
            input_layer = "none" if getattr(sys.modules[build.__module__], "TAKES_PIXELS", False) else input_layer
    return Classifier(Normalize(*input_statistics(input_layer, info)), _checked(network, architecture))


def _of_library(library: str, name: str, info: DatasetInfo, options: dict[str, Any]) -> nn.Module:
    """A model with random weights for the dataset's classes; nothing is downloaded."""
    models = loading.library(f"{library}:{name}")
    make = models.create_model if library == "timm" else models.get_model
    own = {"pretrained": False, "in_chans": info.image_shape[0]} if library == "timm" else {"weights": None}
    network: nn.Module = make(name, num_classes=info.num_classes, **{**own, **options})
    return network
