"""How many of N certificates may be false: accuracy that holds with high probability over the noise."""

from __future__ import annotations

import numpy as np
from scipy import special

from smoothing.bounds import RELATIVE_SLACK


def max_false_certificates(num_images: int, alpha: float, rho: float) -> int:
    """The number of false certificates that is exceeded with probability at most ``rho``.

    Subtract it from a count of certified images, and what is left is certified truly with probability
    at least 1 - rho over the noise of certification.

    Args:
        num_images: Certificates N >= 1, each false with probability at most ``alpha``, independently.
        alpha: Error probability of one certificate, in (0, 1).
        rho: Error probability of the whole statement, in (0, 1). To say it of all of M models at once
            (an envelope picks among them), take rho / M.

    Returns:
        The least q with P(Binomial(N, alpha) > q) <= rho.

    Raises:
        ValueError: An argument is outside its range.

    Guarantee:
        A certificate's event is "its bound exceeds the true probability", whatever radius is read off
        it, so one q serves all radii of a model. The number of such events is stochastically at most
        Binomial(N, alpha). Numerical error raises q.

    Source:
        Cohen et al. 2019, appendix B, gives a bound by Bernstein's inequality, and their published
        code drops a factor 2 in it; the quantile needs neither.
    """
    if num_images < 1 or not 0 < alpha < 1 or not 0 < rho < 1:
        raise ValueError(f"need num_images >= 1, alpha and rho in (0, 1), got {num_images!r}, {alpha!r}, {rho!r}")
    exceeded = special.bdtrc(np.arange(num_images, dtype=np.float64), num_images, alpha)
    enough = np.flatnonzero(exceeded * (1.0 + 1e4 * RELATIVE_SLACK) <= rho)
    return int(enough[0]) if enough.size else num_images
