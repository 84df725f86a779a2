"""A grid's certified models as pandas, for notebooks and your own plots."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis import load
from analysis.compare import compare, default_radii
from analysis.runs import Reading
from analysis.selection import Where
from analysis.statistics import Levels, envelope_frame, model_frame, rows_of
from jobs.files.store import Store
from jobs.files.summary import SUMMED


@dataclass(frozen=True, kw_only=True, eq=False)
class GridFrames:
    """The certified models of a grid as tables."""

    models: pd.DataFrame  # one row per certified model, as in models.csv (``analysis.statistics.model_frame``)
    records: pd.DataFrame  # one row per certified model and image: model, the columns of the records
    curves: pd.DataFrame  # certified accuracy in [0, 1]: one row per radius, one column per certified model
    envelope: pd.DataFrame  # one row per radius, as in envelope.csv (``analysis.statistics.envelope_frame``)


def load_grid(
    grid: str,
    results: str | Path = "results",
    *,
    radii: Sequence[float] | None = None,
    where: Where | None = None,
    allow_partial: bool = False,
) -> GridFrames:
    """A launched or imported grid as pandas; see ``analysis.load.load_grid`` for conditions and errors.

    Args:
        grid: Its name.
        results: The results folder.
        radii: Radii of curves and envelope; None: about ten even steps.
        where: Conditions on models, such as ``{"method": "smoothadv"}``.
        allow_partial: Leave out incomplete models instead of raising an error.
    """
    reading = Reading(more=(*SUMMED, "counts"))
    found = load.load_grid(Store(Path(results)), grid, where=where, allow_partial=allow_partial, reading=reading)
    comparison = compare(found)
    at = default_radii(comparison) if radii is None else list(radii)
    joined = pd.concat({model.label: model.rows.to_pandas() for model in found.models}, names=["model"])
    return GridFrames(
        models=pd.DataFrame(rows_of(model_frame(found.models))),
        records=joined.reset_index(level="model").reset_index(drop=True),
        curves=pd.DataFrame({model.label: model.curve(at) for model in found.models}, index=pd.Index(at, name="r")),
        envelope=pd.DataFrame(rows_of(envelope_frame(comparison, at, Levels()))),
    )
