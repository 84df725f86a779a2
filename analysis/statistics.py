"""Statistics of each cell of an envelope's table: intervals, bands, bounds."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.candidates import Candidate, Candidates, are_exact
from analysis.compare import Comparison
from analysis.models import CertifiedModel
from analysis.printed import printed_envelope
from jobs.files.summary import NUM_BINS
from smoothing.bounds import two_sided_interval
from smoothing.bracket import min_possible_count, n_limited_radius
from smoothing.simultaneous import max_false_certificates, simultaneous_half_width


@dataclass(frozen=True, kw_only=True)
class Levels:
    """Error levels."""

    confidence: float = 0.95  # of the intervals and of the simultaneous band, in (0, 1)
    rho: float = 0.001  # error probability of the high-probability accuracy, in (0, 1)


Frame = dict[str, npt.NDArray[Any]]
"""A table by its columns, all of one length; not from pandas, which takes a quarter of a second to import."""


def envelope_frame(comparison: Comparison, radii: Sequence[float], levels: Levels) -> Frame:
    """One row per radius; docs/envelope-statistics.md defines the numbers. Shares are in [0, 1].

    Returns:
        Columns radius, num_images; then, for the candidates and, with the prefix ``baseline_``, for the
        baseline: num_models, the certified models searched; num_certified, a mean if the winner has several
        seeds; accuracy; is_lower_bound: the accuracy is not exact there (see ``analysis.candidates``); num_seeds of
        the winner; seed_sd; lower, upper: interval of this cell alone; monte_carlo_upper; band_lower, band_upper;
        high_probability; n_limited; average_radius, abstention_rate and model of the winner; printed: the paper's
        number. Then single_model and single_accuracy of the best single candidate, and gain over the baseline.
        What the records do not allow, or the paper does not print, is nan, as is whatever a lower bound would enter.
    """
    at = np.asarray(radii, dtype=np.float64)
    frame = {"radius": at, "num_images": np.full(at.size, comparison.candidates.num_images)}
    frame |= _columns_of(comparison.candidates, radii, levels)
    best = best_single(comparison.candidates, radii)
    single = comparison.candidates.curves[best.label](at)
    last = {
        "single_model": np.full(at.size, best.name, dtype=object),
        "single_accuracy": np.where(frame["is_lower_bound"], np.nan, single),
    }
    if comparison.baseline is not None:
        baseline = _columns_of(comparison.baseline, radii, levels)
        frame |= {f"baseline_{name}": column for name, column in baseline.items()}
        is_bound = frame["is_lower_bound"] | baseline["is_lower_bound"]
        last["gain"] = np.where(is_bound, np.nan, frame["accuracy"] - baseline["accuracy"])
    return frame | last


def best_single(candidates: Candidates, radii: Sequence[float]) -> Candidate:
    """The candidate with the largest mean accuracy over the exact radii on the images of selection; first of equals."""
    exact = np.asarray(radii)[are_exact(radii, candidates.exact_step)]
    at = exact if exact.size else np.zeros(1)
    scores = {label: float(curve(at).mean()) for label, curve in candidates.selection_curves.items()}
    return candidates.by_label[max(scores, key=lambda label: scores[label])]


def model_frame(models: Sequence[CertifiedModel]) -> Frame:
    """One row per certified model, with its parameters; docs/envelope-statistics.md defines the numbers.

    What the records do not contain is nan, or None in columns of text.
    """
    return _frame(
        [
            {
                "model": model.label,
                **{name: getattr(model.parameters, name) for name in _SHOWN},
                "num_images": len(model.rows),
                "clean_accuracy": model.clean_accuracy,
                "accuracy_under_noise": model.summary.accuracy_under_noise,
                "smoothed_accuracy": float(model.curve(0.0)),
                "abstention_rate": model.abstention_rate,
                "average_radius": model.average_radius,
                "elapsed_s": model.summary.elapsed_s,
            }
            for model in models
        ]
    )


_SHOWN = (
    *("method", "attack", "sigma_train", "sigma_cert", "epsilon", "m_train", "num_steps"),
    *("seed", "n", "alpha", "mode", "variant"),
)


def probability_frame(models: Sequence[CertifiedModel]) -> Frame:
    """How many images have a lower bound on the top class's probability in each bin, per certification sigma.

    Columns sigma_cert, p_from, p_to, num_images, share; no rows if the records do not contain p_lower.
    """
    told = [(model.parameters.sigma_cert, model.summary.bounds) for model in models if model.summary.bounds]
    sigmas, edges = np.unique([sigma for sigma, _ in told]), np.linspace(0.0, 1.0, NUM_BINS + 1)
    sums = [np.sum([bounds for sigma, bounds in told if sigma == one], axis=0) for one in sigmas]
    counts_SB = np.array(sums).reshape(-1, NUM_BINS)
    return {
        "sigma_cert": np.repeat(sigmas, NUM_BINS),
        "p_from": np.tile(edges[:-1], sigmas.size),
        "p_to": np.tile(edges[1:], sigmas.size),
        "num_images": counts_SB.ravel(),
        "share": (counts_SB / counts_SB.sum(axis=1, keepdims=True)).ravel(),
    }


def csv_text(frame: Frame) -> str:
    """A table as CSV; nan and None are empty."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(frame), lineterminator="\n")
    writer.writeheader()
    for row in rows_of(frame):
        writer.writerow({name: "" if is_missing(value) else value for name, value in row.items()})
    return file.getvalue()


def is_missing(value: Any) -> bool:
    """Whether a cell is None or nan."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def rows_of(frame: Frame) -> list[dict[str, Any]]:
    """The rows of a table, as values of Python by column."""
    columns = (column.tolist() for column in frame.values())
    return [dict(zip(frame, row, strict=True)) for row in zip(*columns, strict=True)]


def _frame(rows: Sequence[Mapping[str, Any]]) -> Frame:
    """A table from its rows, at least one; among numbers None is nan."""
    frame = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        known = [value for value in values if value is not None]
        if not known or isinstance(known[0], str):
            frame[name] = np.array(values, dtype=object)
        else:
            frame[name] = np.array(values, dtype=None if len(known) == len(values) else np.float64)
    return frame


def _columns_of(candidates: Candidates, radii: Sequence[float], levels: Levels) -> Frame:
    winners = [candidates.winner_at(radius) for radius in radii]
    reported: dict[Candidate | None, list[CertifiedModel]] = {None: []}
    for winner in dict.fromkeys(filter(None, winners)):
        reported[winner] = [model.among(candidates.is_reported) for model in winner.replicates]
    # If models are selected on other images, only the winners count as searched on the images reported.
    among = len(candidates.models) if candidates.is_reported.all() else max(1, sum(map(len, reported.values())))
    cells = [
        _cell_of(candidates, winner, reported[winner], radius, levels, among)
        for winner, radius in zip(winners, radii, strict=True)
    ]
    return _frame(cells)


def _cell_of(
    candidates: Candidates,
    winner: Candidate | None,
    models: Sequence[CertifiedModel],
    radius: float,
    levels: Levels,
    among: int,
) -> dict[str, Any]:
    """The statistics of a cell; for several seeds, the mean of their numbers and the sum of their errors.

    ``models`` are the winner's replicates on the images reported.
    """
    num_images, replicates = candidates.num_images, winner.replicates if winner else ()
    counts = np.array([int(model.curve.num_certified(radius)) for model in models] or [0])
    accuracy = float(candidates.accuracy_at(radius)[0])
    is_bound = not are_exact(radius, candidates.exact_step)
    lower, upper = two_sided_interval(counts, num_images, (1 - levels.confidence) / counts.size)
    half_width = simultaneous_half_width(num_images, among, 1 - levels.confidence)
    if_exact = {
        "seed_sd": float(np.std(counts / num_images, ddof=1)) if counts.size > 1 else math.nan,
        "lower": _mean(lower),
        "upper": _mean(upper),
        "monte_carlo_upper": _mean([_monte_carlo_upper(model, radius) for model in models]),
        "band_lower": max(accuracy - half_width, 0.0),
        "band_upper": min(accuracy + half_width, 1.0),
    }
    alpha = candidates.models[0].parameters.alpha
    num_false = math.nan if alpha is None else max_false_certificates(num_images, alpha, levels.rho / among)
    # Where no model certifies anything, the limit that is farthest applies.
    known = [one.parameters for one in ([winner] if winner else candidates.by_label.values())]
    return {
        "num_models": len(candidates.models),
        "num_certified": int(counts[0]) if counts.size == 1 else float(counts.mean()),
        "accuracy": accuracy,
        "is_lower_bound": is_bound,
        "num_seeds": len(models),
        **(dict.fromkeys(if_exact, math.nan) if is_bound else if_exact),
        "high_probability": _mean(np.maximum(counts - num_false, 0)) / num_images,
        "n_limited": radius > max(n_limited_radius(one.sigma_cert, one.n, one.alpha) for one in known),
        "average_radius": _mean([model.average_radius for model in replicates]),
        "abstention_rate": _mean([model.abstention_rate for model in replicates]),
        "printed": _printed(candidates, radius),
        "model": winner.name if winner else "",
    }


def _mean(values: Sequence[float] | npt.NDArray[Any]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _monte_carlo_upper(model: CertifiedModel, radius: float) -> float:
    """The share of images whose votes do not rule out that they are correct at a radius; nan if there are no votes."""
    known, against = model.parameters, model.votes_against
    if known.n is None or known.alpha is None or against is None:
        return math.nan
    needed = min_possible_count(
        radius, n=known.n, sigma=known.sigma_cert, alpha=known.alpha, total_variation=model.total_variation
    )
    # Draws that were left out are counted as votes for the class.
    return int(np.searchsorted(against, known.n - needed, side="right")) / len(model.rows)


def _printed(candidates: Candidates, radius: float) -> float:
    """The paper's envelope for the same method and dataset; nan where the paper prints none."""
    methods = {model.parameters.method for model in candidates.models}
    dataset = candidates.models[0].parameters.dataset
    row = printed_envelope(dataset, methods.pop() or "") if len(methods) == 1 else None
    # Unlike a model's row, an envelope is not 0 beyond the last radius that the paper prints.
    last = row.first_radius + (len(row.percents) - 1) * row.radius_step if row else 0.0
    return row.percent_at(radius) / 100 if row and radius <= last + 1e-9 else math.nan
