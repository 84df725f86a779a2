"""Randomized smoothing: bounds, radii, accuracy curves, class counts under noise, attacks.

Arrays in, arrays out. Nothing in this package knows about files, configuration, clusters or clocks.
``bounds``, ``radius``, ``certificate``, ``accuracy`` and ``noise`` need only numpy and scipy;
``counts``, ``certify`` and ``attacks`` also need torch.

Names mean the same everywhere: ``sigma`` is the standard deviation of the noise, > 0, an l2 length in pixels of
[0, 1] like all radii; ``alpha`` the probability that a bound or a certificate is wrong, in (0, 1); ``counts`` votes
per class, int64, shape (K,); ``inputs_BCHW`` images in [0, 1], ``labels_B`` their true classes, int64;
``noise_MBCHW`` M noise draws for each image, scaled by sigma.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smoothing.certify import SmoothedClassifier as SmoothedClassifier


def __getattr__(name: str) -> object:
    """``SmoothedClassifier`` is imported on access, since it needs torch."""
    if name != "SmoothedClassifier":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from smoothing.certify import SmoothedClassifier

    return SmoothedClassifier
