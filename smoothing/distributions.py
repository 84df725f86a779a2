"""Distributions of the noise added to an image: the Gaussian in float32, and its exact counterpart.

Shapes: B rows of a batch, C H W image.
"""

import functools
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from smoothing.noise import BLOCK_ROWS, NoiseStream

Noise = Literal["gaussian", "exact_grid"]

T = TypeVar("T")

UNIFORM_BITS = 62
_GUIDE_BITS = 16  # a table over the uniform's leading bits decides all but a few percent of draws
_PART = 1 << 15  # draws at a time: their intermediate values stay in a core's cache


class OffGridError(ValueError):
    """An image whose pixels are not on the grid of exact noise."""


@dataclass(frozen=True)
class GaussianNoise:
    """N(0, sigma^2) for each pixel, drawn and added in float32.

    Guarantee:
        Certificates hold up to floating-point rounding: the rounding of the sum depends on the image,
        and an adversary might exploit it (Voracek and Hein 2023). ``ExactGridNoise`` has no such gap.
    """

    sigma: float  # standard deviation, > 0, in pixels of [0, 1]

    def total_variation(self, num_pixels: int) -> float:
        """Upper bound of the total variation distance between a drawn noise vector and the ideal one."""
        del num_pixels  # rounding is not accounted for: see the guarantee
        return 0.0

    def center(self, image_CHW: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The image in the units of the noise, which is added to it. Raises OffGridError if it is not on its grid."""
        return image_CHW

    def block(self, stream: NoiseStream, block_nr: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Noise, shape (smoothing.noise.BLOCK_ROWS, *shape); depends only on the arguments."""
        return stream.block(block_nr, shape)

    def inputs(self, center: T, noise: Any) -> T:
        """The classifier's inputs in pixels of [0, 1], from float32 tensors."""
        inputs: T = self.sigma * noise + center
        return inputs


@dataclass(frozen=True)
class ExactGridNoise:
    """The Gaussian rounded to the grid of the image's levels: integers, added without rounding.

    An image of X / num_levels with integers X is smoothed by N = round(Z), Z ~ N(0, (sigma *
    num_levels)^2), and the classifier is given (X + N) / num_levels, which is a function of the
    integer X + N = round(X + Z) alone. This is ordinary Gaussian smoothing of the classifier that
    rounds its input first, and certificates hold exactly, despite floating point, for every image on
    the same grid. Methods are those of ``GaussianNoise``.

    Source:
        Voracek and Hein 2023, for the gap and its remedy.
    """

    sigma: float  # standard deviation of Z / num_levels, > 0
    num_levels: int  # L, where pixels are the integers 0 to L divided by L; 255 for 8-bit images

    def total_variation(self, num_pixels: int) -> float:
        """At most num_pixels * 2 m * 2^-62, where the noise is between -m and m.

        Each of the 2 m thresholds is off by at most half of 2^-62, which moves the distribution of a pixel
        by at most m * 2^-62 in total variation, and the two tails beyond m together have less than
        2^-62 <= m * 2^-62.
        """
        return num_pixels * len(_thresholds(self.sigma * self.num_levels)) * 2.0**-UNIFORM_BITS

    def center(self, image_CHW: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        levels: npt.NDArray[np.float32] = np.rint(image_CHW * np.float32(self.num_levels))
        on_grid = (levels / np.float32(self.num_levels) == image_CHW) & (levels >= 0) & (levels <= self.num_levels)
        if not on_grid.all():
            value = float(image_CHW[~on_grid].flat[0])
            raise OffGridError(
                f"exact-grid noise needs pixels that are multiples of 1/{self.num_levels} in [0, 1]; "
                f"{int((~on_grid).sum())} are not, the first is {value!r}; use noise=gaussian for such images"
            )
        return levels

    def block(self, stream: NoiseStream, block_nr: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        noise = np.empty((BLOCK_ROWS, *shape), dtype=np.float32)
        philox, flat = stream.philox(block_nr), noise.reshape(-1)
        for start in range(0, noise.size, _PART):
            part = flat[start : start + _PART]
            uniform = philox.random_raw(len(part))
            uniform >>= np.uint64(64 - UNIFORM_BITS)
            part[:] = _bucketed(uniform, self.sigma * self.num_levels)
        return noise

    def inputs(self, center: T, noise: Any) -> T:
        # Integers below 2^24 are exact in float32, and so is their sum.
        inputs: T = (noise + center) / self.num_levels
        return inputs

    @property
    def thresholds(self) -> npt.NDArray[np.int64]:
        """All that a device needs to draw this noise with the same bits, shape (2 m,), ascending, in (0, 2**62).

        The noise is the number of those that are not above a uniform integer below 2**62 (of a stream's 64 bits
        the upper 62), minus m.
        """
        return _thresholds(self.sigma * self.num_levels).astype(np.int64)


NoiseDistribution = GaussianNoise | ExactGridNoise
"""How noise is drawn and added to an image."""


def noise_distribution(noise: Noise, sigma: float, num_levels: int) -> NoiseDistribution:
    """The distribution with a given name, for images on the grid of ``num_levels``."""
    return ExactGridNoise(sigma, num_levels) if noise == "exact_grid" else GaussianNoise(sigma)


@functools.lru_cache(maxsize=64)
def _thresholds(scale: float) -> npt.NDArray[np.uint64]:
    """round(2^62 * Phi((j + 1/2) / scale)) for j = -m .. m - 1: all that are neither 0 nor 2^62.

    Computed to 50 digits; the upper half mirrors the lower half exactly.
    """
    import mpmath  # type: ignore[import-untyped]  # imported only for exact noise

    context = mpmath.mp.clone()
    context.dps = 50
    whole = 2**UNIFORM_BITS
    lower: list[int] = []
    while True:
        below = context.ncdf(-(context.mpf(len(lower)) + 0.5) / context.mpf(scale))
        threshold = int(context.nint(whole * below))
        if threshold == 0:
            break
        lower.append(threshold)
    lower.reverse()
    return np.array([*lower, *(whole - threshold for threshold in reversed(lower))], dtype=np.uint64)


@functools.lru_cache(maxsize=64)
def _guide(scale: float) -> npt.NDArray[np.float32]:
    """The noise j for each value of the leading bits, or nan if it depends on the remaining bits."""
    thresholds = _thresholds(scale)
    width = np.uint64(1 << (UNIFORM_BITS - _GUIDE_BITS))
    firsts = np.arange(1 << _GUIDE_BITS, dtype=np.uint64) * width
    buckets = np.searchsorted(thresholds, firsts, side="right")
    last_buckets = np.searchsorted(thresholds, firsts + (width - np.uint64(1)), side="right")
    return np.where(buckets == last_buckets, buckets - len(thresholds) // 2, np.nan).astype(np.float32)


def _bucketed(uniform: npt.NDArray[np.uint64], scale: float) -> npt.NDArray[np.float32]:
    """The noise j for each uniform integer below 2^62: the number of thresholds at or below it, minus m."""
    leading = (uniform >> np.uint64(UNIFORM_BITS - _GUIDE_BITS)).view(np.int64)  # below 2^16, so the sign bit is 0
    found = _guide(scale).take(leading)
    open_ones = np.flatnonzero(np.isnan(found))
    thresholds = _thresholds(scale)
    found[open_ones] = np.searchsorted(thresholds, uniform[open_ones], side="right") - len(thresholds) // 2
    return found
