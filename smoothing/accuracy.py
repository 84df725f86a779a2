"""Certified accuracy as an exact step function, and the upper envelope of several."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AccuracyCurve:
    """Certified accuracy of one certified model: r -> share of images certified correct at radius >= r.

    Non-increasing and continuous from the left: it steps down just above each of its radii.
    """

    radii: FloatArray  # of the correctly certified images, ascending, float64, shape (C,)
    num_images: int  # number of test images, certified or not, N >= 1

    @classmethod
    def from_records(cls, correct: npt.ArrayLike, radii: npt.ArrayLike) -> "AccuracyCurve":
        """The curve of one certified model.

        Args:
            correct: Whether each prediction is correct (an abstention is not), bool, shape (N,).
            radii: Certified radii >= 0, shape (N,).

        Raises:
            ValueError: Shapes differ, there are no images, or a radius is negative or not finite.
        """
        is_correct = np.asarray(correct, dtype=bool)
        radius = np.asarray(radii, dtype=np.float64)
        if is_correct.shape != radius.shape or radius.ndim != 1 or radius.size == 0:
            raise ValueError(f"need one radius for each of N >= 1 images, got {is_correct.shape} and {radius.shape}")
        if not np.all(np.isfinite(radius) & (radius >= 0)):
            raise ValueError("radii must be finite and not negative")
        return cls(radii=np.sort(radius[is_correct]), num_images=radius.size)

    def num_certified(self, at: npt.ArrayLike) -> IntArray:
        """Number of images certified correct at radius >= ``at``; int64, the shape of ``at``."""
        below = np.searchsorted(self.radii, np.asarray(at, dtype=np.float64), side="left")
        return np.asarray(self.radii.size - below, dtype=np.int64)

    def __call__(self, at: npt.ArrayLike) -> FloatArray:
        """Certified accuracy in [0, 1] at each radius of ``at``."""
        return np.asarray(self.num_certified(at) / self.num_images, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Envelope:
    """Upper envelope of several accuracy curves, exact at every radius.

    On the interval (breakpoints[j - 1], breakpoints[j]], with breakpoints[-1] read as -inf, the
    model ``models[winners[j]]`` certifies ``num_certified[j]`` images, the most of all models.
    Above the last breakpoint no model certifies anything.
    """

    models: tuple[str, ...]  # names, in the order given; ties go to the earlier model
    breakpoints: FloatArray  # radii at which the count or the winner changes, ascending, shape (J,)
    num_certified: IntArray  # shape (J,)
    winners: IntArray  # indices into ``models``, shape (J,)
    num_images: int  # number of test images N, the same for all models

    def num_certified_at(self, at: npt.ArrayLike) -> IntArray:
        """The number of images certified at each radius of ``at``; 0 above the last breakpoint."""
        step = np.searchsorted(self.breakpoints, np.asarray(at, dtype=np.float64), side="left")
        return np.asarray(np.append(self.num_certified, 0)[step], dtype=np.int64)

    def __call__(self, at: npt.ArrayLike) -> FloatArray:
        """The envelope in [0, 1] at each radius of ``at``."""
        return np.asarray(self.num_certified_at(at) / self.num_images, dtype=np.float64)

    def winner_at(self, at: float) -> str | None:
        """The model that attains the envelope at a radius; None where nothing is certified."""
        step = int(np.searchsorted(self.breakpoints, at, side="left"))
        return self.models[int(self.winners[step])] if step < self.breakpoints.size else None


def upper_envelope(curves: Mapping[str, AccuracyCurve]) -> Envelope:
    """The maximum over models of certified accuracy, with its arg-max.

    Args:
        curves: At least one curve, by name, all over the same number of images.

    Returns:
        The exact envelope. Ties go to the earlier model.

    Raises:
        ValueError: No curve, or curves over different numbers of images.

    Source:
        Salman et al. 2019, section 4 (upper envelopes of Table 2 and Figure 1).
    """
    if not curves:
        raise ValueError("an envelope needs at least one curve")
    sizes = {curve.num_images for curve in curves.values()}
    if len(sizes) > 1:
        raise ValueError(f"curves over different numbers of images cannot be compared: {sorted(sizes)}")
    # Computed by counts instead of radii: the largest radius at which some model certifies k images is
    # the maximum over models of their k-th largest radii. This costs models x images; evaluating every
    # model at every radius would cost models^2 x images.
    best = np.full(max(curve.radii.size for curve in curves.values()), -np.inf)
    for curve in curves.values():
        reached = curve.radii[::-1]  # [k - 1]: largest radius at which it certifies k
        np.maximum(best[: reached.size], reached, out=best[: reached.size])
    count_ends = np.append(best[1:], -np.inf)  # up to here some model certifies k + 1
    best = np.full(best.size, -np.inf)
    parts: list[tuple[FloatArray, IntArray, IntArray]] = []  # radii, counts and winner of each model's steps
    for model_nr, curve in enumerate(curves.values()):
        reached, before = curve.radii[::-1], best[: curve.radii.size]
        # Of the models that certify k images at a radius the first wins: a model wins beyond all before it.
        steps = np.flatnonzero((reached > before) & (reached > count_ends[: reached.size]))
        parts.append((reached[steps], steps + 1, np.full(steps.size, model_nr)))
        np.maximum(before, reached, out=before)
    radii, counts, winners = map(np.concatenate, zip(*parts, strict=True))
    ascending = np.argsort(radii, kind="stable")
    return Envelope(
        models=tuple(curves),
        breakpoints=radii[ascending],
        num_certified=counts[ascending].astype(np.int64),
        winners=winners[ascending].astype(np.int64),
        num_images=sizes.pop(),
    )
