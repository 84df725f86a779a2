"""A band around many accuracy curves that holds for all models and all radii at once."""

from __future__ import annotations

import math


def simultaneous_half_width(num_images: int, num_models: int, error: float) -> float:
    """Half the width of a band that contains every model's true curve at every radius.

    Args:
        num_images: Independent test images N >= 1.
        num_models: Curves M >= 1, all over those images, including those that were not selected.
        error: Probability that the band fails anywhere, in (0, 1).

    Returns:
        sqrt(ln(2 M / error) / (2 N)), to be added to and subtracted from measured accuracies in [0, 1].

    Raises:
        ValueError: An argument is outside its range.

    Guarantee:
        A curve is one minus the distribution function of an image's certified radius (minus infinity
        where it is not certified correct). The Dvoretzky-Kiefer-Wolfowitz inequality with Massart's
        constant bounds its largest error over all radii; the union bound covers all M models. So
        the band also holds for whichever model is chosen at whichever radius, and the best accuracy
        measured is within the half-width of the best true one.

    Source:
        Massart 1990, The tight constant in the Dvoretzky-Kiefer-Wolfowitz inequality.
    """
    if num_images < 1 or num_models < 1 or not 0 < error < 1:
        raise ValueError(
            f"need num_images >= 1, num_models >= 1 and error in (0, 1), got {num_images!r}, {num_models!r}, {error!r}"
        )
    return math.sqrt(math.log(2 * num_models / error) / (2 * num_images))
