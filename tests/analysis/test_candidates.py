import math

import numpy as np
import pytest

from analysis.candidates import candidates_of
from analysis.compare import compare
from analysis.models import label_models
from analysis.statistics import Levels, envelope_frame
from analysis.tables import caption, envelope_table
from smoothing.bounds import two_sided_interval
from tests.analysis.models import grid, model, parameters, seeds

LEVELS = Levels(confidence=0.95, rho=0.001)
LUCKY = seeds("lucky", [0.5, 0.5, 0.5, 0.5], [-1, -1, 0.5, 0.5], [-1, -1, -1, -1])
STEADY = seeds("steady", [0.5, 0.5, 0.5, -1], [0.5, 0.5, 0.5, -1])


def test_seeds_of_one_recipe_are_chosen_by_their_mean() -> None:
    comparison = compare(grid(*LUCKY, *STEADY))
    frame = envelope_frame(comparison, [0.5], LEVELS)
    assert frame["model"][0] == "steady (2 seeds)"
    assert (frame["accuracy"][0], frame["num_certified"][0], frame["num_seeds"][0]) == (0.75, 3, 2)
    assert frame["seed_sd"][0] == 0.0
    lower, upper = two_sided_interval(3, 4, 0.05 / 2)
    assert (frame["lower"][0], frame["upper"][0]) == pytest.approx((float(lower), float(upper)))
    assert "best of 2 certified models" in caption(comparison, frame, LEVELS)
    assert "mean ± SD over seeds" in caption(comparison, frame, LEVELS)
    alone = envelope_frame(compare(grid(*LUCKY)), [0.5], LEVELS)
    assert (alone["accuracy"][0], alone["num_certified"][0]) == (0.5, 2.0)
    assert alone["seed_sd"][0] == pytest.approx(0.5)
    assert "50.0 ± 50.0* [" in envelope_table(compare(grid(*LUCKY)), alone, "simple")


def test_the_best_single_seed_is_taken_on_request_and_called_so() -> None:
    comparison = compare(grid(*LUCKY, *STEADY), seeds="best")
    frame = envelope_frame(comparison, [0.5], LEVELS)
    assert (frame["model"][0], frame["accuracy"][0]) == ("lucky seed 0", 1.0)
    assert "best single seed (seeds=best)" in caption(comparison, frame, LEVELS)


def test_a_grid_without_seeds_is_as_it_was() -> None:
    comparison = compare(grid(model("one", [0.5, -1]), model("two", [0.1, 0.1])))
    frame = envelope_frame(comparison, [0.5], LEVELS)
    assert (frame["model"][0], frame["num_certified"][0], frame["accuracy"][0]) == ("one", 1, 0.5)
    assert math.isnan(frame["seed_sd"][0])
    assert "seed" not in caption(comparison, frame, LEVELS)


def test_choosing_by_the_mean_over_seeds_is_not_optimistic() -> None:
    """Models of one true accuracy: their mean is right within a tenth of a point; the best of five seeds is not."""
    rng, num_images, runs = np.random.default_rng(0), 2000, 300
    mean, best = np.zeros(runs), np.zeros(runs)
    for run in range(runs):
        radii = np.where(rng.random((5, num_images)) < 0.5, 1.0, -1.0)
        models = seeds("one", *radii.tolist())
        mean[run] = candidates_of(models, "mean").accuracy_at(1.0)[0]
        best[run] = candidates_of(models, "best", seeds="best").accuracy_at(1.0)[0]
    assert abs(mean.mean() - 0.5) < 0.001
    assert best.mean() - 0.5 > 0.01


def test_labels_of_seeds_say_the_seed() -> None:
    known = [parameters("pgd-s0.25", seed=seed, recipe="r", train_key=f"digits-pgd-s0.25-{seed}") for seed in (0, 1)]
    known += [parameters("pgd-s0.50", seed=0, recipe="q", train_key="digits-pgd-s0.50-7")]
    assert [one.label for one in label_models(dict(enumerate(known))).values()] == [
        "pgd-s0.25 seed 0",
        "pgd-s0.25 seed 1",
        "pgd-s0.50",
    ]
    twice = [parameters("pgd", seed=0, recipe="r", certify_key=f"s0.25-{part}") for part in "ab"]
    assert [one.label for one in label_models(dict(enumerate(twice))).values()] == ["pgd seed 0 a", "pgd seed 0 b"]
