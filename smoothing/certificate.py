"""What votes prove: certificates and predictions from counts alone, without sampling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smoothing.bounds import clopper_pearson_lower, top_class_p_value
from smoothing.radius import ABSTAIN, certified_radius


@dataclass(frozen=True, kw_only=True, eq=False)
class Certificate:
    """What smoothing proves about one image.

    Attributes:
        prediction: The class, or ABSTAIN.
        radius: Certified l2 radius, >= 0; 0 when abstaining.
        p_lower: Lower confidence bound on the selected class's probability.
        count_top: Votes k of the selected class among the estimation draws.
        counts0: Votes per class in selection, int64, shape (K,).
        counts: Votes per class in estimation, int64, shape (K,).
    """

    prediction: int
    radius: float
    p_lower: float
    count_top: int
    counts0: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]


def certificate_from_counts(
    counts0: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], *, sigma: float, alpha: float
) -> Certificate:
    """The certificate that two independent vectors of votes give.

    Args:
        counts0: Votes per class in selection, int64, shape (K,); the most voted is selected,
            the lowest class number among equals.
        counts: Votes per class in estimation, int64, shape (K,).
        sigma: Standard deviation of the noise, > 0.
        alpha: Error probability in (0, 1).
    """
    selected = int(np.argmax(counts0))
    count_top = int(counts[selected])
    p_lower = float(clopper_pearson_lower(count_top, int(counts.sum()), alpha))
    abstains = p_lower < 0.5
    return Certificate(
        prediction=ABSTAIN if abstains else selected,
        radius=0.0 if abstains else float(certified_radius(p_lower, sigma)),
        p_lower=p_lower,
        count_top=count_top,
        counts0=counts0,
        counts=counts,
    )


def prediction_from_counts(counts: npt.NDArray[np.int64], *, alpha: float) -> int:
    """PREDICT's answer to votes per class, int64, shape (K,) with K >= 2: a class or ABSTAIN."""
    second, top = np.argsort(counts, kind="stable")[-2:]
    p_value = top_class_p_value(int(counts[top]), int(counts[second]))
    return int(top) if p_value <= alpha else ABSTAIN
