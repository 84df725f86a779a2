"""Certificates at another alpha, from the votes that were cast: no sampling, the same guarantee."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.models import CertifiedGrid, CertifiedModel
from jobs.errors import RecordError
from smoothing.bounds import can_certify, clopper_pearson_lower, min_samples_to_certify
from smoothing.radius import ABSTAIN, certified_radius

_VOTES_STAND = {"full", "wrong_class", "abstain"}
"""How sampling may have ended for a fixed-n bound on its votes to hold at any alpha."""


def at_alpha(grid: CertifiedGrid, alpha: float) -> CertifiedGrid:
    """The grid as it would be had it been certified with another alpha.

    Each certificate is then false with probability at most the new alpha, provided that it was not
    chosen for what comes out.

    Args:
        grid: Loaded with its votes.
        alpha: In (0, 1).

    Raises:
        RecordError: There are no votes, or sampling was stopped on the strength of a bound at the old
            alpha: then the number of draws itself depends on it.
    """
    return replace(grid, models=tuple(_model_at_alpha(model, alpha) for model in grid.models))


def _model_at_alpha(model: CertifiedModel, alpha: float) -> CertifiedModel:
    known = model.parameters
    if known.n is None or not all(model.has(name) for name in ("count_top", "n_used", "stop", "counts0")):
        raise RecordError(f"alpha cannot be re-chosen: the records of {model.label} hold no votes")
    ends = set(pc.unique(model.rows["stop"]).to_pylist())
    if not ends <= _VOTES_STAND:
        raise RecordError(
            f"alpha cannot be re-chosen: for some images of {model.label} sampling was stopped as soon as a bound at "
            f"alpha={known.alpha} was good enough ({', '.join(sorted(ends - _VOTES_STAND))}); certify again"
        )
    if not can_certify(known.n, alpha):
        raise RecordError(
            f"alpha={alpha}: n={known.n} draws can never certify anything at it; it takes "
            f"{min_samples_to_certify(alpha)}"
        )
    return replace(model, parameters=replace(known, alpha=alpha), rows=_rows_at_alpha(model, alpha))


def _rows_at_alpha(model: CertifiedModel, alpha: float) -> pa.Table:
    """Rows whose sampling stopped early stay as they are: they abstain, or are of a wrong class.

    At a larger alpha a row that curtailment ended might have certified something after all: what it
    claims, nothing, is still true.
    """
    is_full = np.asarray(pc.equal(model.rows["stop"], "full"))
    n_used = np.where(is_full, model.column("n_used"), 1)
    count_top = np.where(is_full, model.column("count_top"), 0)
    p_lower = clopper_pearson_lower(count_top, n_used, alpha, total_variation=model.total_variation)
    selected = np.array([int(np.argmax(votes)) for votes in model.rows["counts0"].to_pylist()])
    certified = is_full & (p_lower >= 0.5)
    prediction = np.where(certified, selected, np.where(is_full, ABSTAIN, model.column("prediction")))
    radius = np.where(certified, certified_radius(p_lower, model.parameters.sigma_cert), 0.0)
    changed = {
        "prediction": pa.array(prediction, pa.int32()),
        "correct": pa.array(prediction == model.column("label")),
        "radius": pa.array(radius),
        "p_lower": pa.array(np.where(is_full, p_lower, model.column("p_lower"))),
    }
    rows = model.rows
    for name, array in changed.items():
        rows = rows.set_column(rows.column_names.index(name), name, array)
    return rows
