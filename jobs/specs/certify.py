"""The spec of a certification: exactly the fields that change a record."""

from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from jobs.datasets import Split
from jobs.specs.keys import AtLeastOne, Positive, PositiveLength, Probability, Seed, decimal, digest, plain
from jobs.validation import STRICT, Fitting
from smoothing.bounds import MIN_ALPHA, min_samples_to_certify
from smoothing.distributions import Noise
from smoothing.sequential import Procedure

Precision = Literal["float32", "tf32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CertifySpec(Fitting, Procedure):
    """One way of certifying one base classifier: a procedure with its model, images and noise."""

    train_key: str  # key of the TrainSpec
    split: Split = "test"  # which images
    sigma_cert: PositiveLength  # standard deviation of the smoothing noise, > 0
    n0: AtLeastOne
    n: AtLeastOne
    alpha: Probability  # error probability of each certificate; it and its share for each bound are in [1e-30, 1)
    radius_step: Positive | None = None
    # The noise's distribution: gaussian in float32, or exact_grid, integers added to integers
    noise: Noise = "gaussian"
    precision: Precision = "float32"  # arithmetic of the network
    seed: Seed  # of the noise, with each image's index

    stage: ClassVar[Literal["certify"]] = "certify"

    def _problems(self) -> Iterator[str]:
        smallest = min(look.alpha for look in self.looks)
        if smallest < MIN_ALPHA:
            share = f", and the smallest share of it for one bound is {smallest:.3g}" if smallest < self.alpha else ""
            yield f"alpha={self.alpha} is too small: no bound is sound below {MIN_ALPHA}{share}"
        if not self.can_ever_certify():
            yield (
                f"n={self.n} draws can never certify anything at alpha={self.alpha}: even unanimous votes "
                f"do not prove a majority; take n >= {min_samples_to_certify(self.alpha)} or a larger alpha"
            )
        rule = f"stop_rule={self.stop_rule}, radius_step={self.radius_step}"
        if self.mode == "adaptive" and (self.stop_rule is None or self.radius_step is None):
            yield f"mode=adaptive needs a stop_rule (grid or curve) and a radius_step > 0 (got {rule})"
        if self.mode == "paper" and (self.stop_rule is not None or self.radius_step is not None):
            yield f"mode=paper draws all n samples: leave out stop_rule and radius_step (got {rule})"

    @property
    def sigma(self) -> float:
        """The smoothing noise, by the name that it has in every task."""
        return self.sigma_cert

    @cached_property
    def key(self) -> str:
        """For example ``s0.25-n2000-1a2b3c4d``."""
        return f"s{decimal(self.sigma_cert)}-n{self.n}-{digest('certify', plain(self))}"
