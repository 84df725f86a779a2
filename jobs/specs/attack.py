"""The spec of an attack: one point of an empirical accuracy curve."""

import functools
from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from jobs.datasets import Split
from jobs.specs.keys import AtLeastOne, Length, Positive, PositiveLength, Probability, Seed, decimal, digest, plain
from jobs.validation import STRICT, Fitting
from smoothing.bounds import MIN_ALPHA

TestAttack = Literal["pgd", "ddn", "vanilla", "stein", "stein_hard"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AttackSpec(Fitting):
    """One attack on one smoothed classifier, followed by PREDICT."""

    train_key: str  # key of the TrainSpec
    split: Split = "test"  # which images
    # pgd and ddn are SmoothAdv's, on the smoothed classifier; vanilla is PGD on the base classifier; stein and
    # stein_hard are PGD along the gradient-free estimate of soft or hard outputs
    attack: TestAttack
    sigma: PositiveLength  # standard deviation of the smoothing noise, > 0
    epsilon: Length  # radius of the attack, >= 0
    num_steps: AtLeastOne  # steps T
    m_test: AtLeastOne  # noise draws of the attack; 1 with vanilla, which has none
    inverse_temperature: Positive = 1.0  # the factor beta of the logits in the attack's softmax
    n: AtLeastOne  # draws of PREDICT
    alpha: Probability  # its error probability, in [1e-30, 1)
    precision: Literal["float32"] = "float32"  # arithmetic of the network
    seed: Seed  # of all noise, with each image's index

    stage: ClassVar[Literal["attack"]] = "attack"

    def _problems(self) -> Iterator[str]:
        if self.attack == "vanilla" and self.m_test != 1:
            yield f"attack=vanilla has no noise: m_test must be 1, got {self.m_test}"
        if self.attack == "stein_hard" and self.inverse_temperature != 1.0:
            yield "inverse_temperature has no effect with attack=stein_hard; leave it out"
        if self.alpha < MIN_ALPHA:
            yield f"alpha={self.alpha} is too small: use at least {MIN_ALPHA}"
        elif 2.0 ** (1 - self.n) > self.alpha:  # the p-value of unanimous votes
            yield (
                f"n={self.n} draws can never predict anything at alpha={self.alpha}: PREDICT abstains even from "
                "unanimous votes; take a larger n or alpha"
            )

    @functools.cached_property
    def key(self) -> str:
        """For example ``pgd-s0.25-e0.50-m128-t20-1a2b3c4d``."""
        slug = f"{self.attack}-s{decimal(self.sigma)}-e{decimal(self.epsilon)}-m{self.m_test}-t{self.num_steps}"
        return f"{slug}-{digest('attack', plain(self))}"
