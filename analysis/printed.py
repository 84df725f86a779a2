"""The numbers printed in the paper, from printed.csv; its header says where they come from."""

import csv
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.selection import Parameters, as_printed


@dataclass(frozen=True, kw_only=True)
class PrintedRow:
    """One printed row."""

    first_radius: float  # radius of the first number
    radius_step: float  # step in radius from each number to the next
    percents: tuple[float, ...]  # the numbers as printed; nan where the paper's generated table says nan

    def percent_at(self, radius: float) -> float:
        """The printed number at a radius; 0 beyond the last one listed; nan if none is printed."""
        position = (radius - self.first_radius) / self.radius_step
        if position < -1e-9 or abs(position - round(position)) > 1e-9 or math.isnan(self.percents[0]):
            return math.nan
        return self.percents[round(position)] if round(position) < len(self.percents) else 0.0


def printed_envelope(dataset: str, method: str) -> PrintedRow | None:
    """The paper's envelope of a method (Tables 1 and 2); None if it prints none."""
    return _tables()[0].get((dataset, method))


def printed_models() -> Mapping[Parameters, PrintedRow]:
    """The paper's rows of single models (Appendix E), by their parameters; sigma and epsilon as printed."""
    return _tables()[1]


def printed_model(known: Parameters) -> PrintedRow | None:
    """The paper's row of a model; None if it prints none."""
    names = (*_TOLD, "split", "variant", "sigma_train", "sigma_cert")
    told = {name: as_printed(name, getattr(known, name)) for name in names}
    return printed_models().get(Parameters(train_key="", certify_key="", **told))


_TOLD: dict[str, Any] = {
    **dict.fromkeys(("dataset", "method", "attack"), str),
    **dict.fromkeys(("num_steps", "m_train"), int),
    "epsilon": float,
}


@functools.cache
def _tables() -> tuple[dict[tuple[str, str], PrintedRow], dict[Parameters, PrintedRow]]:
    """The envelopes, by data set and method, and the single models."""
    envelopes, models = {}, {}
    lines = Path(__file__).with_name("printed.csv").read_text(encoding="utf-8").splitlines()
    for row in csv.DictReader(line for line in lines if line and not line.startswith("#")):
        printed = PrintedRow(
            first_radius=float(row["first_radius"]),
            radius_step=float(row["radius_step"]),
            percents=tuple(map(float, row["percent"].split())),
        )
        if row["table"] == "envelope":
            envelopes[row["dataset"], row["method"]] = printed
            continue
        told = {name: convert(row[name]) for name, convert in _TOLD.items()}
        sigma = float(row["sigma"])
        known = Parameters(train_key="", certify_key="", split="test", sigma_train=sigma, sigma_cert=sigma, **told)
        models[known] = printed
    return envelopes, models
