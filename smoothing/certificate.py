"""Certificates and predictions computed from vote counts, without sampling."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from smoothing.bounds import clopper_pearson_lower, top_class_p_value
from smoothing.radius import ABSTAIN, certified_radius

StopReason = Literal["full", "wrong_class", "abstain", "decided"]
"""Why sampling ended. full: all n votes were drawn. wrong_class: selection chose another class than the
label. abstain: even unanimous further votes could not certify anything. decided: further votes were
not expected to matter."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Certificate:
    """The certificate of one image."""

    prediction: int  # predicted class, or ABSTAIN
    radius: float  # certified l2 radius, >= 0; 0 when abstaining
    p_lower: float  # lower confidence bound on the selected class's probability
    count_top: int  # votes k of the selected class among the estimation draws
    counts0: npt.NDArray[np.int64]  # votes per class in selection, shape (K,)
    counts: npt.NDArray[np.int64]  # votes per class in estimation, shape (K,)
    stop: StopReason = "full"  # why sampling ended


def certificate_from_counts(
    counts0: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], *, sigma: float, alpha: float
) -> Certificate:
    """The certificate from two independent vectors of votes.

    Args:
        counts0: Votes per class in selection, int64, shape (K,); the class with most votes is selected,
            the lowest class number among ties.
        counts: Votes per class in estimation, int64, shape (K,).
        sigma: Standard deviation of the noise, > 0.
        alpha: Error probability in (0, 1).
    """
    p_lower = float(clopper_pearson_lower(counts[np.argmax(counts0)], int(counts.sum()), alpha))
    return certificate_from_bound(p_lower, counts0, counts, sigma=sigma)


def certificate_from_bound(
    p_lower: float,
    counts0: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    *,
    sigma: float,
    stop: StopReason = "full",
) -> Certificate:
    """The certificate from a bound on the selected class's probability.

    Args:
        p_lower: Lower confidence bound on the probability of the class most voted in selection.
        counts0: Votes per class in selection, int64, shape (K,).
        counts: Votes per class in estimation, int64, shape (K,); all 0 if none were drawn.
        sigma: Standard deviation of the noise, > 0.
        stop: Why sampling ended.
    """
    selected = int(np.argmax(counts0))
    abstains = p_lower < 0.5
    return Certificate(
        prediction=ABSTAIN if abstains else selected,
        radius=0.0 if abstains else float(certified_radius(p_lower, sigma)),
        p_lower=p_lower,
        count_top=int(counts[selected]),
        counts0=counts0,
        counts=counts,
        stop=stop,
    )


def prediction_from_counts(counts: npt.NDArray[np.int64], *, alpha: float) -> int:
    """PREDICT's answer, a class or ABSTAIN, from votes per class, int64, shape (K,) with K >= 2."""
    second, top = np.argsort(counts, kind="stable")[-2:]
    p_value = top_class_p_value(int(counts[top]), int(counts[second]))
    return int(top) if p_value <= alpha else ABSTAIN
