"""Randomized smoothing: bounds, radii, accuracy curves, class counts under noise, attacks.

Arrays in, arrays out. Nothing in this package knows about files, configuration, clusters or clocks.
``bounds``, ``radius``, ``certificate``, ``accuracy`` and ``noise`` need only numpy and scipy;
``counts``, ``certify`` and ``attacks`` also need torch.
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
