"""Attacks on classifiers trained on real digits: none helps the classifier, more draws harm it more."""

from typing import Any

import pytest
import torch
from torch import Tensor

from jobs.datasets import load_images
from jobs.files.store import Store
from jobs.networks.checkpoint import load_classifier
from jobs.networks.classifier import Classifier
from smoothing.attacks import smoothadv_pgd
from smoothing.ddn import smoothadv_ddn
from smoothing.gradients import SteinEstimator, smoothed_cross_entropy
from tests.jobs.units import GAUSSIAN_RUN, retrained, train_here
from tests.trees import inputs_of

SIGMA, EPSILON, NUM_IMAGES = 0.25, 0.5, 60


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    run = retrained(GAUSSIAN_RUN, epochs=12)
    store = Store(tmp_path_factory.mktemp("trained"))
    train_here(store, run)
    path = store.checkpoint_path(run.train.key)
    return load_classifier(path, run.train, torch.device("cpu")).classifier


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    images = load_images("digits", "test")
    return torch.from_numpy(inputs_of(images)[:NUM_IMAGES]), torch.from_numpy(images.labels[:NUM_IMAGES])


def _noise(num_draws: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return SIGMA * torch.randn(num_draws, NUM_IMAGES, 1, 8, 8, generator=generator)


def _loss(classifier: Classifier, inputs: Tensor, labels: Tensor, noise: Tensor) -> Tensor:
    with torch.inference_mode():
        logits = classifier((inputs + noise).flatten(0, 1)).reshape(*noise.shape[:2], -1)
        return smoothed_cross_entropy(logits, labels)


SETTINGS: dict[str, Any] = {"epsilon": EPSILON, "generator": torch.Generator().manual_seed(0)}


@pytest.mark.parametrize("num_draws", [1, 8])
@pytest.mark.parametrize("attack", [smoothadv_pgd, smoothadv_ddn])
def test_no_attack_lowers_the_loss_it_climbs(
    classifier: Classifier, digits: tuple[Tensor, Tensor], attack: Any, num_draws: int
) -> None:
    """On the very draws it was given, of each single image, but for rounding of the loss."""
    noise = _noise(num_draws, seed=1)
    found = attack(classifier, *digits, noise, num_steps=10, **SETTINGS)
    before, after = _loss(classifier, *digits, noise), _loss(classifier, found, digits[1], noise)
    assert (after >= before - 1e-4 * (1 + before)).all()
    assert after.mean() > before.mean() + 0.05


@pytest.mark.slow
def test_more_draws_make_a_stronger_attack(classifier: Classifier, digits: tuple[Tensor, Tensor]) -> None:
    """The paper's Figure 3: measured on 2,000 fresh draws; gradient-free (Figure 8) stays behind."""
    fresh = _noise(2000, seed=2)

    def loss_after(num_draws: int, **more: Any) -> float:
        noise, settings = _noise(num_draws, seed=3), {**SETTINGS, **more}
        found = smoothadv_pgd(classifier, *digits, noise, num_steps=10, **settings)
        return float(_loss(classifier, found, digits[1], fresh).mean())

    clean = float(_loss(classifier, *digits, fresh).mean())
    one, eight, many = (loss_after(num_draws) for num_draws in (1, 8, 64))
    assert clean < one < eight < many
    stein = loss_after(64, estimator=SteinEstimator(sigma=SIGMA))
    assert clean < stein < many
    vanilla = smoothadv_pgd(classifier, *digits, torch.zeros_like(fresh[:1]), num_steps=10, **SETTINGS)
    assert clean < float(_loss(classifier, vanilla, digits[1], fresh).mean()) < many
