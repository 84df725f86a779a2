"""The numbers printed in the paper, from printed.csv; its header says where they come from."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.selection import Parameters, as_printed

_PATH = Path(__file__).with_name("printed.csv")


class ModelKey(NamedTuple):
    """Identifies a printed row; sigma and epsilon to two decimals, as printed."""

    dataset: str
    method: str
    attack: str
    num_steps: int
    m_train: int
    sigma: float
    epsilon: float


@dataclass(frozen=True, kw_only=True)
class PrintedRow:
    """One printed row.

    Attributes:
        first_radius: Radius of the first number.
        radius_step: Step in radius from each number to the next.
        percents: The numbers as printed; nan where the paper's generated table says nan.
    """

    first_radius: float
    radius_step: float
    percents: tuple[float, ...]

    def percent_at(self, radius: float) -> float | None:
        """The printed number at a radius; 0 beyond the last one listed; None if none is printed."""
        position = (radius - self.first_radius) / self.radius_step
        if position < -1e-9 or abs(position - round(position)) > 1e-9:
            return None
        if math.isnan(self.percents[0]):
            return math.nan
        return self.percents[round(position)] if round(position) < len(self.percents) else 0.0

    @property
    def last_radius(self) -> float:
        """Radius of the last number listed."""
        return self.first_radius + (len(self.percents) - 1) * self.radius_step


def printed_envelope(dataset: str, method: str) -> PrintedRow | None:
    """The paper's envelope of a method (Tables 1 and 2); None if it prints none."""
    return _envelopes().get((dataset, method))


def printed_model(parameters: Parameters) -> PrintedRow | None:
    """The paper's row of a model (Appendix E); None if it prints none."""
    if parameters.variant or not parameters.is_certified_as_trained or parameters.split != "test":
        return None
    key = _key_of(parameters)
    return None if key is None else printed_models().get(key)


@functools.cache
def printed_models() -> Mapping[ModelKey, PrintedRow]:
    """All rows of single models."""
    return {
        ModelKey(
            dataset=row["dataset"],
            method=row["method"],
            attack=row["attack"],
            num_steps=int(row["num_steps"]),
            m_train=int(row["m_train"]),
            sigma=float(row["sigma"]),
            epsilon=float(row["epsilon"]),
        ): _printed(row)
        for row in _rows("model")
    }


@functools.cache
def _envelopes() -> Mapping[tuple[str, str], PrintedRow]:
    return {(row["dataset"], row["method"]): _printed(row) for row in _rows("envelope")}


def _key_of(known: Parameters) -> ModelKey | None:
    if known.method is None or known.attack is None or known.num_steps is None or known.m_train is None:
        return None
    if known.sigma_train is None or known.epsilon is None:
        return None
    return ModelKey(
        dataset=known.dataset,
        method=known.method,
        attack=known.attack,
        num_steps=known.num_steps,
        m_train=known.m_train,
        sigma=known.sigma_train,
        epsilon=as_printed("epsilon", known.epsilon),
    )


def _rows(table: str) -> Iterator[Mapping[str, Any]]:
    frame = pd.read_csv(_PATH, comment="#", dtype=str, keep_default_na=False)
    for row in frame[frame["table"] == table].to_dict("records"):
        yield {str(name): value for name, value in row.items()}


def _printed(row: Mapping[str, Any]) -> PrintedRow:
    return PrintedRow(
        first_radius=float(row["first_radius"]),
        radius_step=float(row["radius_step"]),
        percents=tuple(np.array(row["percent"].split(), dtype=np.float64).tolist()),
    )
