import math

import numpy as np
import pytest

from smoothing.simultaneous import simultaneous_half_width


def test_closed_form() -> None:
    assert simultaneous_half_width(500, 640, 0.05) == pytest.approx(math.sqrt(math.log(25600) / 1000))
    assert simultaneous_half_width(500, 1, 2 / math.e) == pytest.approx(math.sqrt(1 / 1000))


def test_it_holds_for_all_models_and_radii_at_once_where_single_intervals_do_not() -> None:
    """Radii uniform on [0, 1], so the true curve is 1 - r: how often does the worst cell leave the band?"""
    num_images, num_models, error, num_runs = 60, 8, 0.1, 2000
    rng = np.random.default_rng(2)
    radii = np.sort(rng.random((num_runs, num_models, num_images)), axis=2)
    below = np.arange(num_images) / num_images
    worst = np.maximum(np.abs(radii - below), np.abs(radii - below - 1 / num_images)).max(axis=(1, 2))
    half_width = simultaneous_half_width(num_images, num_models, error)
    slack = 5 * math.sqrt(error / num_runs)  # five standard deviations of the simulation
    assert np.mean(worst > half_width) <= error + slack
    single = simultaneous_half_width(num_images, 1, error)
    assert np.mean(worst > single) > error + slack


@pytest.mark.parametrize("arguments", [(0, 1, 0.1), (1, 0, 0.1), (1, 1, 0.0), (1, 1, 1.0)])
def test_bad_arguments(arguments: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="need num_images >= 1"):
        simultaneous_half_width(*arguments)
