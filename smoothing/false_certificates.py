"""A bound on the number of false certificates among N, for accuracy that holds with high probability."""

from __future__ import annotations

import numpy as np
from scipy import special

from smoothing.bounds import RELATIVE_SLACK


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
    if num_images < 1 or not 0 < alpha < 1 or not 0 < rho < 1:
        raise ValueError(f"need num_images >= 1, alpha and rho in (0, 1), got {num_images!r}, {alpha!r}, {rho!r}")
    exceeded = special.bdtrc(np.arange(num_images, dtype=np.float64), num_images, alpha)
    enough = np.flatnonzero(exceeded * (1.0 + 1e4 * RELATIVE_SLACK) <= rho)
    return int(enough[0]) if enough.size else num_images
