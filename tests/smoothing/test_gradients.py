"""Gradient estimators against closed forms and against each other."""

import math

import pytest
import torch
from torch import Tensor, nn

from smoothing.attacks import smoothadv_pgd
from smoothing.gradients import (
    PlugInEstimator,
    SteinEstimator,
    gradient_estimator,
)

SIGMA = 0.5


class Linear(nn.Module):
    """Two classes whose logits differ by weights . x + bias: class 1 where that is positive."""

    def __init__(self, weights: Tensor, bias: float) -> None:
        super().__init__()
        self.weights, self.bias = weights, bias

    def forward(self, inputs: Tensor) -> Tensor:
        margin = inputs.flatten(1) @ self.weights + self.bias
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


class Scaled(nn.Module):
    """Its inputs times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, values: Tensor) -> Tensor:
        return self.factor * values


def _linear(num_pixels: int, seed: int = 0) -> Linear:
    weights = torch.randn(num_pixels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Linear(weights, bias=0.1)


def test_stein_with_hard_votes_is_the_gradient_of_the_smoothed_linear_classifier() -> None:
    """P(f(x + noise) = 1) = Phi(margin / (sigma |w|)), whose gradient is phi(.) w / (sigma |w|)."""
    classifier, num_draws = _linear(4), 200_000
    points = torch.tensor([[[[0.2, 0.7], [0.4, 0.1]]]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    noise = SIGMA * torch.randn(num_draws, 1, 1, 2, 2, generator=generator, dtype=torch.float64)
    found, prediction = SteinEstimator(sigma=SIGMA, hard=True).gradient(classifier, points, torch.tensor([1]), noise)
    scale = SIGMA * float(classifier.weights.norm())
    margin = float(points.flatten() @ classifier.weights) + classifier.bias
    density = math.exp(-((margin / scale) ** 2) / 2) / math.sqrt(2 * math.pi)
    expected = -density * classifier.weights / scale
    # Each entry is a mean of draws with deviation at most 1 / sigma: five standard errors.
    tolerance = 5 / (SIGMA * math.sqrt(num_draws))
    torch.testing.assert_close(found.flatten(), expected, rtol=0, atol=tolerance)
    assert expected.abs().max() > 10 * tolerance  # the tolerance could not hide a wrong factor
    assert int(prediction) == int(margin > 0)


def test_stein_with_soft_outputs_is_the_gradient_by_differentiation() -> None:
    """-grad E[F_y] by Stein's lemma and E[F_y] * grad(-log E[F_y]) by automatic differentiation."""
    torch.manual_seed(0)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 3)).double().requires_grad_(False)
    points, labels, num_draws = torch.rand(2, 1, 1, 3).double(), torch.tensor([0, 2]), 400_000
    noise = SIGMA * torch.randn(num_draws, 2, 1, 1, 3).double()
    by_values, _ = SteinEstimator(sigma=SIGMA).gradient(classifier, points, labels, noise)
    by_derivative, _ = PlugInEstimator().gradient(classifier, points, labels, noise)
    logits = classifier((points + noise).flatten(0, 1)).reshape(num_draws, 2, 3)
    probability = torch.softmax(logits, dim=-1).mean(dim=0)[torch.arange(2), labels]
    tolerance = 5 / (SIGMA * math.sqrt(num_draws))
    expected = by_derivative * probability[:, None, None, None]
    torch.testing.assert_close(by_values, expected, rtol=0, atol=tolerance)


def test_the_inverse_temperature_multiplies_the_logits() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double().requires_grad_(False)
    points, labels, noise = torch.rand(2, 1, 2, 2).double(), torch.tensor([0, 2]), torch.randn(5, 2, 1, 2, 2).double()
    for beta in (0.25, 1.0, 20.0):
        expected, _ = PlugInEstimator().gradient(nn.Sequential(network, Scaled(beta)), points, labels, noise)
        found, _ = PlugInEstimator(inverse_temperature=beta).gradient(network, points, labels, noise)
        torch.testing.assert_close(found, expected)


def test_a_large_inverse_temperature_counts_votes() -> None:
    """Soft outputs become the vote, so both gradient-free estimates agree."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double().requires_grad_(False)
    points, labels, noise = torch.rand(2, 1, 2, 2).double(), torch.tensor([0, 2]), torch.randn(50, 2, 1, 2, 2).double()
    soft, _ = SteinEstimator(sigma=1.0, inverse_temperature=1e9).gradient(network, points, labels, noise)
    hard, _ = SteinEstimator(sigma=1.0, hard=True).gradient(network, points, labels, noise)
    torch.testing.assert_close(soft, hard)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan])
def test_stein_refuses_to_work_without_noise(sigma: float) -> None:
    with pytest.raises(ValueError, match="sigma must be > 0"):
        SteinEstimator(sigma=sigma)


@pytest.mark.parametrize("m", [1, 2, 7])
@pytest.mark.parametrize("beta", [0.5, 1.0, 8.0])
@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_pgd_attains_the_optimum_on_smoothed_linear_models(m: int, beta: float, num_steps: int) -> None:
    """Whatever the noise, the steepest way on a linear model is along its weights."""
    classifier, epsilon = _linear(12), 0.3
    inputs, labels = torch.full((3, 3, 2, 2), 0.5).double(), torch.tensor([1, 0, 1])
    noise = SIGMA * torch.randn(m, 3, 3, 2, 2).double()
    found = smoothadv_pgd(
        classifier,
        inputs,
        labels,
        noise,
        epsilon=epsilon,
        num_steps=num_steps,
        generator=torch.Generator(),
        estimator=PlugInEstimator(inverse_temperature=beta),
    )
    unit = (classifier.weights / classifier.weights.norm()).reshape(3, 2, 2)
    sign = torch.tensor([-1.0, 1.0, -1.0])[:, None, None, None]
    torch.testing.assert_close(found, inputs + epsilon * sign * unit, rtol=0, atol=2e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_vanilla_pgd_attains_the_optimum_on_linear_models(batch_size: int) -> None:
    classifier, epsilon = _linear(12), 0.3
    inputs, labels = torch.full((batch_size, 3, 2, 2), 0.5).double(), torch.ones(batch_size, dtype=torch.int64)
    noise = torch.zeros_like(inputs).unsqueeze(0)
    found = smoothadv_pgd(classifier, inputs, labels, noise, epsilon=epsilon, num_steps=2, generator=torch.Generator())
    unit = (classifier.weights / classifier.weights.norm()).reshape(3, 2, 2)
    torch.testing.assert_close(found, (inputs - epsilon * unit), rtol=0, atol=2e-6)


def test_gradient_free_pgd_nears_the_optimum_with_many_draws() -> None:
    classifier, epsilon = _linear(12), 0.3
    inputs, labels = torch.full((1, 3, 2, 2), 0.5).double(), torch.tensor([1])
    unit = (classifier.weights / classifier.weights.norm()).reshape(3, 2, 2)

    def gain(num_draws: int, *, hard: bool) -> float:
        generator = torch.Generator().manual_seed(0)
        noise = SIGMA * torch.randn(num_draws, 1, 3, 2, 2, generator=generator).double()
        found = smoothadv_pgd(
            classifier,
            inputs,
            labels,
            noise,
            epsilon=epsilon,
            num_steps=2,
            generator=generator,
            estimator=SteinEstimator(sigma=SIGMA, hard=hard),
        )
        return float(((inputs - found) * unit).sum() / epsilon)  # the cosine with the best direction

    for hard in (False, True):
        assert gain(100_000, hard=hard) > 0.99
        assert gain(4, hard=hard) < 0.9


@pytest.mark.parametrize("attack", ["pgd", "ddn", "vanilla"])
def test_attacks_follow_the_gradient(attack: str) -> None:
    assert gradient_estimator(attack, sigma=0.0, inverse_temperature=3.0) == PlugInEstimator(inverse_temperature=3.0)


@pytest.mark.parametrize(("attack", "hard"), [("stein", False), ("stein_hard", True)])
def test_gradient_free_attacks_follow_steins_estimate(attack: str, hard: bool) -> None:
    expected = SteinEstimator(sigma=0.5, hard=hard, inverse_temperature=2.0)
    assert gradient_estimator(attack, sigma=0.5, inverse_temperature=2.0) == expected


@pytest.mark.parametrize("name", ["pgd", "stein"])
def test_a_prediction_is_made_at_the_estimators_temperature(name: str) -> None:
    """One draw is sure of class 0, two lean to class 1: the mean softmax says 0 at beta 1, the votes' 1 at beta 50."""
    logits_MBK = torch.tensor([[[4.0, 0.0]], [[0.0, 0.4]], [[0.0, 0.4]]])
    noise_MBCHW = torch.arange(3.0).view(3, 1, 1, 1, 1)

    def classifier(inputs_BCHW: Tensor) -> Tensor:
        return logits_MBK[inputs_BCHW.flatten().long(), 0]

    points = torch.zeros(1, 1, 1, 1)
    found = {}
    for beta in (1.0, 50.0):
        estimator = gradient_estimator(name, sigma=SIGMA, inverse_temperature=beta)
        found[beta] = estimator.prediction(classifier, points, noise_MBCHW).tolist()
    assert found == {1.0: [0], 50.0: [1]}
