"""When to stop counting votes: looks that share one error probability, and stops that cost none.

The plain procedure (Cohen et al. 2019) looks once, at n votes. Computing the same bound repeatedly is
wrong, because its error grows with every look. Here the looks are fixed in advance, and each has its
own share of alpha.
"""

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from smoothing.bounds import can_certify, clopper_pearson_lower, clopper_pearson_upper, min_count_for
from smoothing.certificate import Certificate, StopReason, certificate_from_bound
from smoothing.noise import BLOCK_ROWS, Stage
from smoothing.radius import certified_radius

Mode = Literal["paper", "adaptive"]
StopRule = Literal["grid", "curve"]

FIRST_LOOK = 1000
"""Votes at the first look; each look has twice the votes of the one before, the last has n."""

EARLY_WEIGHT = 0.0125
"""Share of alpha of each look except the last, which keeps .9125 at n = 100 000: an image that needs all
votes loses next to nothing."""

_CHECKS = 32  # curtailment is checked about this often in n votes; more checks would make a GPU wait


@dataclass(frozen=True)
class Look:
    """One bound, computed if sampling gets this far."""

    num_samples: int  # votes that it is computed from, fixed in advance
    alpha: float  # its error probability


@dataclass(frozen=True, kw_only=True)
class Procedure:
    """How an image is certified, except for its noise."""

    n0: int  # draws for choosing the class, >= 1
    n: int  # largest number of draws for bounding its probability, >= 1
    alpha: float  # probability that the certificate is wrong, in (0, 1)
    mode: Mode = "paper"  # paper: one bound from all n votes; adaptive: a bound at every look
    # With adaptive, when to stop. grid: when no further multiple of ``radius_step`` can be certified; curve: when the
    # radius can grow by less than ``radius_step``.
    stop_rule: StopRule | None = None
    radius_step: float | None = None  # an l2 length > 0
    stop_wrong: bool = False  # draw nothing more if selection chose another class than the label
    curtail: bool = False  # abstain as soon as even unanimous further votes could not certify anything

    @functools.cached_property
    def looks(self) -> tuple[Look, ...]:
        """One look at n; for ``adaptive``, looks at 1000, 2000, 4000, ... and n.

        Guarantee:
            The error probabilities sum to at most ``alpha``. By the union bound the running maximum of
            the looks' lower bounds exceeds the true probability with at most that probability,
            whatever rule stops the sampling: the number of votes of every look is a constant.
        """
        doubled = (FIRST_LOOK * 2**look_nr for look_nr in itertools.count())
        early = [] if self.mode == "paper" else list(itertools.takewhile(lambda count: count < self.n, doubled))
        left = 1.0 - EARLY_WEIGHT * len(early)
        assert left > 0.5, "no int32 n has that many doublings"
        return (*(Look(count, self.alpha * EARLY_WEIGHT) for count in early), Look(self.n, self.alpha * left))

    def can_ever_certify(self) -> bool:
        """Whether unanimous votes would certify anything at some look."""
        return any(can_certify(look.num_samples, look.alpha) for look in self.looks)


@dataclass(frozen=True)
class DecisionRules:
    """What a procedure decides from votes under noise of one distribution."""

    procedure: Procedure
    sigma: float  # standard deviation of the noise, > 0, in pixels of [0, 1]
    total_variation: float = 0.0  # distance between the drawn noise and the ideal noise; subtracted from the bound

    @functools.cached_property
    def checkpoints(self) -> tuple[int, ...]:
        """Numbers of votes at which sampling may be stopped, ascending, ending with n. The same for all images."""
        counts, n = {look.num_samples for look in self.procedure.looks}, self.procedure.n
        if self.procedure.curtail:
            every = BLOCK_ROWS * max(1, n // (_CHECKS * BLOCK_ROWS))
            # No image is hopeless before it has lost more votes than some look allows.
            first = min(self._votes_to_lose[look] for look in self.procedure.looks) + 1
            counts.update(count for count in range(every, n, every) if count >= first)
        return tuple(sorted(counts))

    def is_hopeless(self, count_top: int, num_samples: int) -> bool:
        """Whether no later look can reach 1/2, whatever the remaining votes are."""
        lost = num_samples - count_top
        return all(lost > self._votes_to_lose[look] for look in self._looks_from(num_samples))

    def lower_bound(self, count_top: int, look: Look) -> float:
        """The bound of a look."""
        distance = self.total_variation
        return float(clopper_pearson_lower(count_top, look.num_samples, look.alpha, total_variation=distance))

    def is_enough(self, p_lower: float, count_top: int, num_samples: int) -> bool:
        """Whether the stop rule ends sampling; affects only cost, never soundness."""
        stop_rule, radius_step = self.procedure.stop_rule, self.procedure.radius_step
        if stop_rule is None or radius_step is None:
            return False
        best = max(self._prospects(count_top, num_samples), default=0.0)
        if best < 0.5 or best <= p_lower:
            return True
        reachable, radius = certified_radius([best, p_lower], self.sigma).tolist()
        if stop_rule == "curve":
            return bool(reachable - radius < radius_step)
        # The smallest radius of a table is 0: it only needs no abstention.
        following = 0.0 if p_lower < 0.5 else (math.floor(radius / radius_step) + 1) * radius_step
        return bool(reachable < following)

    def _prospects(self, count_top: int, num_samples: int) -> Iterator[float]:
        """The bounds of later looks if the remaining votes are as good as is plausible."""
        p_upper = float(clopper_pearson_upper(count_top, num_samples, self.procedure.alpha))
        for look in self._looks_from(num_samples + 1):
            to_come = look.num_samples - num_samples
            yield self.lower_bound(min(count_top + to_come, math.ceil(p_upper * look.num_samples)), look)

    def _looks_from(self, num_samples: int) -> list[Look]:
        return [look for look in self.procedure.looks if look.num_samples >= num_samples]

    @functools.cached_property
    def _votes_to_lose(self) -> dict[Look, int]:
        """The most votes for other classes with which a look still certifies; -1 if it never does."""
        least = 0.5 + self.total_variation
        needed = {look: min_count_for(least, look.num_samples, look.alpha) for look in self.procedure.looks}
        return {look: -1 if count is None else look.num_samples - count for look, count in needed.items()}


class Sampling:
    """The sampling of one image: says how many votes are needed, and decides from them."""

    def __init__(self, rules: DecisionRules, label: int | None = None) -> None:
        if rules.procedure.stop_wrong and label is None:
            raise ValueError("stop_wrong needs to know the label")
        self.stage: Stage = "selection"  # of the votes needed
        self.num_wanted = rules.procedure.n0  # votes of this stage, from its first, needed before the next decision
        self.certificate: Certificate | None = None  # once sampling has ended
        self._rules, self._label = rules, label
        self._counts0: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._p_lower = 0.0

    def take(self, counts: npt.NDArray[np.int64]) -> None:
        """Decide from the votes per class, shape (K,), of the first ``num_wanted`` draws of the stage."""
        assert self.certificate is None
        assert counts.sum() == self.num_wanted
        if self.stage == "selection":
            self._select(counts)
        else:
            self._estimate(counts)

    def _select(self, counts: npt.NDArray[np.int64]) -> None:
        self._counts0 = counts
        if self._rules.procedure.stop_wrong and int(np.argmax(counts)) != self._label:
            self._end(np.zeros_like(counts), "wrong_class")
            return
        self.stage, self.num_wanted = "estimation", self._rules.checkpoints[0]

    def _estimate(self, counts: npt.NDArray[np.int64]) -> None:
        rules, num_samples = self._rules, self.num_wanted
        count_top = int(counts[np.argmax(self._counts0)])
        look = next((look for look in rules.procedure.looks if look.num_samples == num_samples), None)
        if look is not None:
            self._p_lower = max(self._p_lower, rules.lower_bound(count_top, look))
        if num_samples == rules.procedure.n:
            self._end(counts, "full")
        elif rules.procedure.curtail and self._p_lower < 0.5 and rules.is_hopeless(count_top, num_samples):
            self._end(counts, "abstain")
        elif look is not None and rules.is_enough(self._p_lower, count_top, num_samples):
            self._end(counts, "decided")
        else:
            self.num_wanted = next(count for count in rules.checkpoints if count > num_samples)

    def _end(self, counts: npt.NDArray[np.int64], stop: StopReason) -> None:
        sigma = self._rules.sigma
        self.certificate = certificate_from_bound(self._p_lower, self._counts0, counts, sigma=sigma, stop=stop)
