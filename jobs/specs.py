"""What is trained and what is certified: the fields that change a result, and nothing else.

A spec's key is a readable slug and eight hex digits of a hash over all its resolved fields, so that
neither a changed default nor a resource, path or shard layout can alter what a key stands for.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic.dataclasses import dataclass

from jobs.architectures import architecture_names
from jobs.datasets import Split, dataset_names
from jobs.validation import STRICT, unknown_choice
from smoothing.bounds import can_certify, min_samples_to_certify

Method = Literal["gaussian", "smoothadv"]
Attack = Literal["none", "pgd"]
Mode = Literal["paper"]
Noise = Literal["gaussian"]
Precision = Literal["float32"]

KEY_FORMAT = 1
"""Goes into every hash; to be raised when a field changes its meaning."""

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1, le=2**31 - 1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainSpec:
    """One base classifier. sigma and epsilon are l2 lengths in pixels of [0, 1].

    Attributes:
        dataset: A name in ``jobs.datasets``.
        architecture: A name in ``jobs.architectures``.
        method: gaussian is noise augmentation (Cohen et al. 2019), smoothadv adversarial
            training of the smoothed classifier (Salman et al. 2019).
        attack: How smoothadv finds its examples; none with gaussian.
        sigma: Standard deviation of the training noise, > 0.
        epsilon: Radius of the attack, > 0 with smoothadv, 0 with gaussian.
        m_train: Noise draws per image, for attack and training step alike.
        num_steps: Steps T of the attack.
        warmup_epochs: epsilon is 0 in the first epoch and full from this one on.
        epochs: Passes over the training set.
        batch_size: Images per optimizer step.
        learning_rate: Of the first epoch.
        lr_step_epochs: The learning rate is multiplied by lr_gamma every so many epochs.
        lr_gamma: In (0, 1].
        momentum: Of SGD, in [0, 1).
        weight_decay: Of SGD.
        seed: Of initial weights, order of images and noise.
    """

    dataset: str
    architecture: str
    method: Method
    attack: Attack = "none"
    sigma: Positive
    epsilon: NotNegative = 0.0
    m_train: AtLeastOne = 1
    num_steps: Annotated[int, Field(ge=0)] = 0
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    epochs: AtLeastOne
    batch_size: AtLeastOne
    learning_rate: Positive
    lr_step_epochs: AtLeastOne
    lr_gamma: Annotated[float, Field(gt=0, le=1)]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: NotNegative
    seed: Seed

    @field_validator("dataset")
    @classmethod
    def _known_dataset(cls, name: str) -> str:
        return _known("dataset", name, dataset_names())

    @field_validator("architecture")
    @classmethod
    def _known_architecture(cls, name: str) -> str:
        return _known("architecture", name, architecture_names())

    @model_validator(mode="after")
    def _attack_fits_method(self) -> TrainSpec:
        attack_fields = (self.attack, self.epsilon, self.m_train, self.num_steps, self.warmup_epochs)
        if self.method == "gaussian" and attack_fields != ("none", 0.0, 1, 0, 0):
            raise ValueError(
                "method=gaussian takes no attack: leave out attack, epsilon, m_train, num_steps and "
                f"warmup_epochs (got {', '.join(map(str, attack_fields))})"
            )
        if self.method == "smoothadv" and (self.attack == "none" or self.epsilon == 0 or self.num_steps == 0):
            raise ValueError(
                "method=smoothadv needs an attack, epsilon > 0 and num_steps >= 1 "
                f"(got attack={self.attack}, epsilon={self.epsilon}, num_steps={self.num_steps})"
            )
        return self

    @cached_property
    def key(self) -> str:
        """For example ``digits-pgd-s0.25-e0.50-m4-t2-1a2b3c4d``."""
        name = self.method if self.attack == "none" else self.attack
        slug = f"{self.dataset}-{name}-s{_decimal(self.sigma)}"
        if self.attack != "none":
            slug += f"-e{_decimal(self.epsilon)}-m{self.m_train}-t{self.num_steps}"
        return f"{slug}-{_digest('train', asdict(self))}"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CertifySpec:
    """One way of certifying one base classifier.

    Attributes:
        train_key: Key of the TrainSpec.
        split: Which images.
        sigma_cert: Standard deviation of the smoothing noise, > 0.
        n0: Draws that select the class.
        n: Draws that bound its probability.
        alpha: Error probability of each certificate, in (0, 1).
        mode: paper is CERTIFY of Cohen et al. 2019, draw for draw.
        noise: The noise's law.
        precision: Arithmetic of the network.
        seed: Of the noise, together with each image's index.
    """

    train_key: str
    split: Split = "test"
    sigma_cert: Positive
    n0: AtLeastOne
    n: AtLeastOne
    alpha: Annotated[float, Field(gt=0, lt=1)]
    mode: Mode = "paper"
    noise: Noise = "gaussian"
    precision: Precision = "float32"
    seed: Seed

    @model_validator(mode="after")
    def _can_certify(self) -> CertifySpec:
        if not can_certify(self.n, self.alpha):
            raise ValueError(
                f"n={self.n} draws can never certify anything at alpha={self.alpha}: even unanimous votes "
                f"do not prove a majority; take n >= {min_samples_to_certify(self.alpha)} or a larger alpha"
            )
        return self

    @cached_property
    def key(self) -> str:
        """For example ``s0.25-n2000-1a2b3c4d``."""
        return f"s{_decimal(self.sigma_cert)}-n{self.n}-{_digest('certify', asdict(self))}"


def canonical_json(fields: dict[str, Any]) -> str:
    """The one text that stands for a mapping: sorted keys, no blanks, shortest exact floats."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(kind: str, fields: dict[str, Any]) -> str:
    text = canonical_json({"kind": kind, "format": KEY_FORMAT, "fields": fields})
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _decimal(value: float) -> str:
    """At least two decimals, more where the value has more: 0.50, 0.125, 1.00."""
    return f"{value:.2f}" if round(value, 2) == value else repr(value)


def _known(what: str, name: str, valid: list[str]) -> str:
    if name not in valid:
        raise ValueError(unknown_choice(what, name, valid))
    return name
