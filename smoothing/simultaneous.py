"""Statements that hold for many models, images and radii at once."""

import functools
import math

import numpy as np

from smoothing.bounds import RELATIVE_SLACK


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


@functools.cache  # called once per cell of a table
def max_false_certificates(num_images: int, alpha: float, rho: float) -> int:
    """The number of false certificates that is exceeded with probability at most ``rho``.

    Subtracted from a count of certified images, it leaves the number that is truly certified with
    probability at least 1 - rho over the noise of certification.

    Args:
        num_images: Certificates N >= 1, each false with probability at most ``alpha``, independently.
        alpha: Error probability of one certificate, in (0, 1).
        rho: Error probability of the statement, in (0, 1). For a statement about M models at once (an
            envelope selects among them), use rho / M.

    Returns:
        The least q with P(Binomial(N, alpha) > q) <= rho.

    Raises:
        ValueError: An argument is outside its range.

    Guarantee:
        A certificate is false only if its bound exceeds the true probability, whichever radius is
        reported, so one q serves all radii of a model. The number of such events is stochastically at
        most Binomial(N, alpha). Numerical error raises q.

    Source:
        Cohen et al. 2019, appendix B, use Bernstein's inequality, and their published code lacks a
        factor 2 in it; the exact quantile needs neither.
    """
    from scipy import special  # slow to import

    if num_images < 1 or not 0 < alpha < 1 or not 0 < rho < 1:
        raise ValueError(f"need num_images >= 1, alpha and rho in (0, 1), got {num_images!r}, {alpha!r}, {rho!r}")
    exceeded = special.bdtrc(np.arange(num_images, dtype=np.float64), num_images, alpha)
    enough = np.flatnonzero(exceeded * (1.0 + 1e4 * RELATIVE_SLACK) <= rho)
    return int(enough[0]) if enough.size else num_images
