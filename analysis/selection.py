"""Selects the certified models of a grid by their parameters."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from jobs.errors import ConfigError, refuse
from jobs.validation import unknown_choice
from smoothing.distributions import Noise


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The known parameters of a certified model; None if a log does not say. Names as in the records."""

    train_key: str
    certify_key: str
    dataset: str
    split: str
    sigma_cert: float
    architecture: str | None = None
    method: str | None = None
    attack: str | None = None
    sigma_train: float | None = None
    epsilon: float | None = None
    m_train: int | None = None
    num_steps: int | None = None
    n0: int | None = None
    n: int | None = None
    alpha: float | None = None
    mode: str | None = None
    stop_rule: str | None = None  # with mode adaptive: what sampling stopped for
    radius_step: float | None = None
    noise: Noise | None = None
    precision: str | None = None
    seed: int | None = None  # of the training
    variant: str = ""
    images: str = ""  # fingerprint of the images, for logs the name of their list; empty if neither is known
    recipe: str = ""  # the same for models that differ only in their seeds; empty where there is nothing to go by

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any]) -> "Parameters":
        """From the columns that all rows of a run share; columns that are not parameters are ignored."""
        return cls(**{name: columns[name] for name in PARAMETERS if name in columns})


PARAMETERS = [field.name for field in fields(Parameters)]

Where = Mapping[str, Any]
Key = TypeVar("Key")


def select(models: Mapping[Key, Parameters], where: Where, grid: str) -> dict[Key, Parameters]:
    """The models that match. Raises ConfigError if a condition names an unknown parameter, or if none matches."""
    refuse(f"where: {unknown_choice('parameter', name, PARAMETERS)}" for name in where if name not in PARAMETERS)
    chosen = {key: known for key, known in models.items() if matches(known, where)}
    if not chosen:
        values = {name: sorted({str(getattr(known, name)) for known in models.values()}) for name in where}
        available = "; ".join(f"values of {name}: {', '.join(found)}" for name, found in values.items())
        raise ConfigError(f"where: no certified model of grid {grid} matches {dict(where)}; {available}")
    return chosen


def matches(parameters: Parameters, where: Where) -> bool:
    """Whether a model matches every condition: a parameter with its value, or a list of allowed values.

    epsilon is compared to two decimals, as tables print it (255/256 is 1.00). ``sigma_cert: as_trained`` is the sigma
    of training.
    """

    def is_met(name: str, wanted: Any) -> bool:
        if wanted == "as_trained":
            return parameters.sigma_train == parameters.sigma_cert
        allowed = wanted if isinstance(wanted, list) else [wanted]
        return as_printed(name, getattr(parameters, name)) in [as_printed(name, choice) for choice in allowed]

    return all(is_met(name, wanted) for name, wanted in where.items())


def as_printed(name: str, value: Any) -> Any:
    """A parameter's value for comparison: epsilon rounded to two decimals, any other value unchanged."""
    return round(value, 2) if name == "epsilon" and isinstance(value, float) else value
