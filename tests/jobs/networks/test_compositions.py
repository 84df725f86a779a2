"""Ensembles and denoisers of linear parts: the smoothed classifier's radius is known in closed form."""

from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from jobs.networks.classifier import Classifier, Denoised, Ensemble, Normalize
from jobs.networks.folding import FoldedClassifier
from smoothing.certify import LabelledImage, certify_images
from smoothing.distributions import noise_distribution
from smoothing.sequential import Procedure

SIGMA, ALPHA, NUM_TRIALS, NUM_PIXELS = 0.5, 0.05, 600, 6
PROCEDURE = Procedure(n0=50, n=400, alpha=ALPHA)


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class LinearDenoiser(nn.Module):
    """Shrinks towards grey along some directions, as the best linear denoiser of Gaussian images does."""

    def __init__(self) -> None:
        super().__init__()
        root_DD = _random(NUM_PIXELS, NUM_PIXELS, seed=1)
        covariance_DD = root_DD @ root_DD.T
        self.map = nn.Linear(NUM_PIXELS, NUM_PIXELS)
        gain_DD = covariance_DD @ (covariance_DD + SIGMA**2 * torch.eye(NUM_PIXELS)).inverse()
        with torch.no_grad():
            self.map.weight.copy_(gain_DD)
            self.map.bias.copy_(0.5 - gain_DD @ torch.full((NUM_PIXELS,), 0.5))

    def forward(self, inputs_BCHW: Tensor) -> Tensor:
        denoised_BD: Tensor = self.map(inputs_BCHW.flatten(1))
        return denoised_BD.view_as(inputs_BCHW)


def _linear(seed: int) -> Classifier:
    layer = nn.Linear(NUM_PIXELS, 2)
    with torch.no_grad():
        layer.weight.copy_(_random(2, NUM_PIXELS, seed=seed))
        layer.bias.copy_(_random(2, seed=seed + 100))
    return Classifier(Normalize((0.4,), (0.3,)), nn.Sequential(nn.Flatten(), layer))


def _ensemble() -> nn.Module:
    return Ensemble(_linear(seed) for seed in (2, 3, 4))


def _denoised() -> nn.Module:
    return Denoised(LinearDenoiser(), _linear(2))


def _image_at(distance: float, network: nn.Module) -> Tensor:
    """An image of class 1 at a distance from the hyperplane where both logits are equal: its exact radius."""
    units_BCHW = torch.cat([torch.zeros(1, NUM_PIXELS), torch.eye(NUM_PIXELS)]).view(-1, 1, 2, 3)
    score_B = network(units_BCHW).double() @ torch.tensor([-1.0, 1.0]).double()
    slope_D, offset = score_B[1:] - score_B[0], score_B[0]
    length = slope_D.norm()
    image_D: Tensor = ((distance - offset / length) * slope_D / length).float()
    return image_D.view(1, 2, 3)


def _certified_radii(network: nn.Module, image_CHW: Tensor) -> list[float]:
    """Radii of certificates of class 1 of one image, each under its own noise."""
    images = (LabelledImage(index=index, label=1, image_CHW=image_CHW) for index in range(NUM_TRIALS))
    noise = noise_distribution("gaussian", SIGMA, 255)
    found = certify_images(network, images, PROCEDURE, noise, num_classes=2, seed=0, batch_size=1000)
    return [certificate.radius for _, certificate in found if certificate.prediction == 1]


@torch.inference_mode()
@pytest.mark.parametrize("make", [_ensemble, _denoised])
def test_the_certified_radius_exceeds_the_exact_one_with_probability_alpha_at_most(
    make: Callable[[], nn.Module],
) -> None:
    network = make().eval()
    exact = 0.8 * SIGMA
    radii, unlikely = _certified_radii(network, _image_at(exact, network)), stats.binom.isf(1e-6, NUM_TRIALS, ALPHA)
    # One-sided: a rate above alpha would show here but for one in a million.
    assert sum(radius > exact for radius in radii) <= unlikely
    # And it is no loose bound that would hide an error: a radius larger by a tenth is refuted.
    assert sum(1.1 * radius > exact for radius in radii) > unlikely


def test_the_logits_are_the_mean_of_those_of_the_members() -> None:
    ensemble, inputs_BCHW = _ensemble(), torch.rand(5, 1, 2, 3)
    logits = [_linear(seed)(inputs_BCHW).detach() for seed in (2, 3, 4)]
    torch.testing.assert_close(ensemble(inputs_BCHW), sum(logits) / 3)


class Convolution(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * NUM_PIXELS, 2)
        )


@pytest.mark.parametrize("make", [Ensemble, lambda members: Denoised(LinearDenoiser(), next(iter(members)))])
def test_a_composition_is_folded_to_the_same_function(make: Callable[[list[Classifier]], nn.Module]) -> None:
    torch.manual_seed(0)
    members = [Classifier(Normalize((0.4,), (0.3,)), Convolution()) for _ in range(3)]
    for member in members:
        for module in member.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var = torch.rand(4) + 0.5
                module.running_mean = torch.randn(4)
    classifier = Classifier(Normalize((0.0,), (1.0,)), make(members)).eval()
    folded, inputs_BCHW = FoldedClassifier(classifier), torch.rand(5, 1, 2, 3)
    assert len(folded.pairs) == (3 if make is Ensemble else 1)
    torch.testing.assert_close(folded(inputs_BCHW), classifier(inputs_BCHW))
