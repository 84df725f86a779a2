"""Certificates at another alpha, recomputed from the recorded votes; the guarantee is the same."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from analysis.models import CertifiedModel
from jobs.errors import RecordError
from jobs.files.summary import summary_of, votes_of
from smoothing.bounds import MIN_ALPHA, can_certify, clopper_pearson_lower, min_samples_to_certify
from smoothing.radius import ABSTAIN, certified_radius

_VOTES_STAND = {"full", "wrong_class", "abstain"}
"""Ways in which sampling may end so that a fixed-n bound on its votes holds at any alpha."""

Bounds = dict[tuple[int, float], npt.NDArray[np.float64]]
"""For each n and total variation, lower bounds and radii at sigma = 2 (a radius is proportional to sigma) by number of
votes, shape (2, n + 1); nan if not computed yet. Both are slow, and models share most of their numbers of votes."""


def at_alpha(model: CertifiedModel, alpha: float, bounds: Bounds | None = None) -> CertifiedModel:
    """The model as if it had been certified with another alpha in (0, 1), which must not be chosen after the results.

    ``bounds`` are those at this alpha from earlier models; new ones are added.

    Raises:
        RecordError: The records contain no votes, or a bound at the old alpha stopped sampling, so that the number
            of draws depends on it.
    """
    known = model.parameters
    if alpha < MIN_ALPHA:
        raise RecordError(f"alpha={alpha} is too small: no bound is sound below {MIN_ALPHA}")
    if known.n is None or not all(model.has(name) for name in ("count_top", "n_used", "stop", "counts0")):
        raise RecordError(f"alpha cannot be changed: the records of {model.label} contain no votes; leave alpha out")
    if not model.stops <= _VOTES_STAND:
        raise RecordError(
            f"alpha cannot be changed: a bound at alpha={known.alpha} stopped the sampling of some images of "
            f"{model.label} ({', '.join(sorted(model.stops - _VOTES_STAND))}), so their number of votes depends on it; "
            "certify again with the new alpha"
        )
    if not can_certify(known.n, alpha):
        raise RecordError(
            f"alpha={alpha}: n={known.n} draws can never certify anything at this alpha, which needs "
            f"n >= {min_samples_to_certify(alpha)}; take a larger alpha"
        )
    rows = _rows_at_alpha(model, alpha, {} if bounds is None else bounds)
    summary = replace(model.summary, bounds=summary_of(rows.select(["p_lower"])).bounds)
    return replace(model, parameters=replace(known, alpha=alpha), rows=rows, summary=summary)


def _rows_at_alpha(model: CertifiedModel, alpha: float, bounds: Bounds) -> pa.Table:
    """The rows at another alpha; those whose sampling stopped early still abstain or are wrong, which is sound."""
    is_full = model.stopped("full")
    p_lower, radius = np.zeros((2, is_full.size))
    n_used, count_top = model.column("n_used"), model.column("count_top")
    for n in np.unique(n_used[is_full]).tolist():
        is_of_n, key = is_full & (n_used == n), (n, model.total_variation)
        if key not in bounds:
            bounds[key] = np.full((2, n + 1), np.nan)
        new = np.unique(count_top[is_of_n & np.isnan(bounds[key][0, np.minimum(count_top, n)])])
        lower = clopper_pearson_lower(new, n, alpha, total_variation=model.total_variation)
        bounds[key][:, new] = lower, certified_radius(lower, sigma=2.0)
        p_lower[is_of_n], radius[is_of_n] = bounds[key].take(count_top[is_of_n], axis=1)
    certified = is_full & (p_lower >= 0.5)
    prediction = np.where(is_full & ~certified, ABSTAIN, model.column("prediction"))
    is_new = certified & (prediction == ABSTAIN)  # the others have the class that was selected
    prediction[is_new] = votes_of(model.rows, "counts0")[is_new].argmax(axis=1)
    radius = np.where(certified, model.parameters.sigma_cert / 2 * radius, 0.0)
    changed = {
        "prediction": pa.array(prediction, pa.int32()),
        "correct": pa.array(prediction == model.column("label")),
        "radius": pa.array(radius),
        "p_lower": pa.array(np.where(is_full, p_lower, model.column("p_lower"))),
    }
    return pa.table({name: changed.get(name, model.rows[name]) for name in model.rows.column_names})
