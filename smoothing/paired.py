"""McNemar's exact test: which of two classifiers certifies more of the same images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smoothing.bounds import top_class_p_value


@dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """Numbers of images on which both, one or neither of two classifiers succeed."""

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def num_images(self) -> int:
        """Number of images, N."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def difference(self) -> float:
        """Accuracy of the first minus that of the second, in [-1, 1]."""
        return (self.only_first - self.only_second) / self.num_images

    @property
    def p_value(self) -> float:
        """Two-sided exact p-value for "both are equally accurate"; 1 if they never differ.

        Under the null hypothesis, if they differ on an image, each is equally likely to be right: the
        same binomial test as PREDICT's between two classes.

        Source:
            McNemar 1947, with the binomial distribution instead of its normal approximation.
        """
        first, second = self.only_first, self.only_second
        return top_class_p_value(max(first, second), min(first, second))


def compare_paired(first: npt.ArrayLike, second: npt.ArrayLike) -> PairedComparison:
    """Count agreements and differences.

    Args:
        first: Whether the first succeeds, bool, shape (N,).
        second: Whether the second succeeds on the same images in the same order, bool, shape (N,).

    Raises:
        ValueError: Shapes differ, or there are no images.
    """
    ours, theirs = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if ours.shape != theirs.shape or ours.ndim != 1 or ours.size == 0:
        raise ValueError(f"need the same N >= 1 images for both, got shapes {ours.shape} and {theirs.shape}")
    return PairedComparison(
        both=int(np.sum(ours & theirs)),
        only_first=int(np.sum(ours & ~theirs)),
        only_second=int(np.sum(~ours & theirs)),
        neither=int(np.sum(~ours & ~theirs)),
    )
