"""Statistics of each cell of an envelope's table: intervals, bands, bounds."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
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

    confidence: float = 0.95  # confidence of the intervals and of the simultaneous band, in (0, 1)
    rho: float = 0.001  # error probability of the high-probability accuracy, in (0, 1)


Frame = dict[str, npt.NDArray[Any]]
"""A table by its columns, all of one length; not from pandas, which takes a quarter of a second to import."""


def envelope_frame(comparison: Comparison, radii: Sequence[float], levels: Levels) -> Frame:
    """One row per radius.

    Returns:
        Columns radius, num_images; then, for the candidates and, with the prefix ``baseline_``, for the
        baseline: num_models, the certified models searched; num_certified, a mean if the winner has several
        seeds; accuracy; is_lower_bound: the accuracy is not exact there (see ``analysis.candidates``); num_seeds
        of the winner, and seed_sd, the standard deviation of their accuracies; lower, upper: exact interval
        for this cell alone, over test images (of several seeds, the mean of their intervals, each at a
        share of the error); monte_carlo_upper: the accuracy if every image were as robust as its votes
        allow (the lower end of that bracket is the accuracy itself); band_lower, band_upper: simultaneous
        over models and radii; high_probability: lower bound on the share of these images that is truly
        certified despite false certificates; n_limited; average_radius, abstention_rate and model: of the
        candidate that attains the cell; printed: the paper's number for the same dataset. Then
        single_accuracy: of the best single candidate; gain over the baseline. What the records do not
        allow, or the paper does not print, is nan, as is whatever a lower bound would enter.
    """
    at = np.asarray(radii, dtype=np.float64)
    frame = {"radius": at, "num_images": np.full(at.size, comparison.candidates.num_images)}
    frame |= _columns_of(comparison, comparison.candidates, at, levels, "")
    if comparison.baseline is not None:
        frame |= _columns_of(comparison, comparison.baseline, at, levels, "baseline_")
    best = best_single(comparison.candidates, radii)
    frame["single_model"] = np.full(at.size, best.name, dtype=object)
    single = comparison.candidates.curves[best.label](at)
    frame["single_accuracy"] = np.where(frame["is_lower_bound"], np.nan, single)
    if comparison.baseline is not None:
        is_bound = frame["is_lower_bound"] | frame["baseline_is_lower_bound"]
        frame["gain"] = np.where(is_bound, np.nan, frame["accuracy"] - frame["baseline_accuracy"])
    return frame


def best_single(candidates: Candidates, radii: Sequence[float]) -> Candidate:
    """The candidate with the largest mean accuracy over the exact radii: the nearest to the envelope.

    Selected on the same images as the envelope; ties go to the earlier one.
    """
    exact = np.asarray(radii)[are_exact(radii, candidates.exact_step)]
    at = exact if exact.size else np.zeros(1)
    scores = {label: float(curve(at).mean()) for label, curve in candidates.selection_curves.items()}
    return candidates.by_label[max(scores, key=lambda label: scores[label])]


def model_frame(models: Sequence[CertifiedModel]) -> Frame:
    """One row per certified model.

    Returns:
        Columns model, its parameters, num_images; clean_accuracy and accuracy_under_noise, of the base classifier;
        smoothed_accuracy: share of images that the smoothed classifier classifies correctly without
        abstaining, which is certified accuracy at radius 0; abstention_rate; average_radius; elapsed_s.
        What the records do not contain is nan, or None in columns of text.
    """
    return {
        "model": _column([model.label for model in models]),
        **{name: _column([getattr(model.parameters, name) for model in models]) for name in _SHOWN},
        "num_images": _column([len(model.rows) for model in models]),
        "clean_accuracy": _column([model.clean_accuracy for model in models]),
        "accuracy_under_noise": _column([model.summary.accuracy_under_noise for model in models]),
        "smoothed_accuracy": _column([float(model.curve(0.0)) for model in models]),
        "abstention_rate": _column([model.abstention_rate for model in models]),
        "average_radius": _column([model.average_radius for model in models]),
        "elapsed_s": _column([model.summary.elapsed_s for model in models]),
    }


_SHOWN = (
    *("method", "attack", "sigma_train", "sigma_cert", "epsilon", "m_train", "num_steps"),
    *("seed", "n", "alpha", "mode", "variant"),
)


def _column(values: Sequence[Any]) -> npt.NDArray[Any]:
    """Values of one type; among numbers None is nan."""
    known = [value for value in values if value is not None]
    if not known or isinstance(known[0], str):
        return np.array(values, dtype=object)
    return np.array(values, dtype=None if len(known) == len(values) else np.float64)


def probability_frame(models: Sequence[CertifiedModel]) -> Frame:
    """The distribution of p_A: how many images have a lower bound on the top class's probability in each bin.

    Returns:
        One row per certification sigma and bin of p_lower in [0, 1]: sigma_cert, p_from, p_to, num_images,
        share. Without rows if the records do not contain p_lower.
    """
    by_sigma: dict[float, list[tuple[int, ...]]] = {}
    for model in models:
        if model.summary.bounds:
            by_sigma.setdefault(model.parameters.sigma_cert, []).append(model.summary.bounds)
    edges = np.linspace(0.0, 1.0, NUM_BINS + 1)
    counts_SB = np.array([np.sum(by_sigma[sigma], axis=0) for sigma in sorted(by_sigma)]).reshape(-1, NUM_BINS)
    return {
        "sigma_cert": np.repeat(sorted(by_sigma), NUM_BINS),
        "p_from": np.tile(edges[:-1], len(by_sigma)),
        "p_to": np.tile(edges[1:], len(by_sigma)),
        "num_images": counts_SB.ravel(),
        "share": (counts_SB / counts_SB.sum(axis=1, keepdims=True)).ravel(),
    }


def csv_text(frame: Frame) -> str:
    """A table as CSV; nan and None are empty."""
    file, rows = io.StringIO(), [["" if is_missing(value) else value for value in row] for row in rows_of(frame)]
    csv.writer(file, lineterminator="\n").writerows([frame, *rows])
    return file.getvalue()


def is_missing(value: Any) -> bool:
    """Whether a cell is None or nan."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def rows_of(frame: Frame) -> list[tuple[Any, ...]]:
    """The rows of a table, as values of Python."""
    return list(zip(*(column.tolist() for column in frame.values()), strict=True))


def monte_carlo_upper(
    model: CertifiedModel, radii: npt.NDArray[np.float64], among: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """The share of images whose votes do not rule out that they are correct at each radius.

    Args:
        radii: r, shape (R,).
        among: Whether an image counts, bool, shape (N,).

    Returns:
        In [0, 1], shape (R,); nan if the records contain no votes, or if sampling was stopped by a lower
        bound. An image that abstains counts if its votes allow r, whatever its class, because this is an
        upper end. An image that ``stop_wrong`` ended has no votes and never counts.
    """
    known = model.parameters
    against = model.votes_against_among(among)
    if known.n is None or known.alpha is None or against is None:
        return np.full(radii.shape, np.nan)
    needed = min_possible_count(
        radii, n=known.n, sigma=known.sigma_cert, alpha=known.alpha, total_variation=model.total_variation
    )
    # Draws that were left out are counted as votes for the class.
    num_possible = np.searchsorted(against, known.n - needed, side="right")
    return np.asarray(num_possible / np.count_nonzero(among), dtype=np.float64)


def _columns_of(
    comparison: Comparison, candidates: Candidates, radii: npt.NDArray[np.float64], levels: Levels, prefix: str
) -> Frame:
    num_images = candidates.num_images
    winners = [candidates.winner_at(float(radius)) for radius in radii]
    accuracy = candidates.accuracy_at(radii)
    num_models = len(candidates.models)
    # If models are selected on other images, only the winners count as searched on the images reported.
    chosen = {id(model): model for winner in winners if winner for model in winner.replicates}
    among = num_models if comparison.selection == "same" else max(1, len(chosen))
    half_width = simultaneous_half_width(num_images, among, 1 - levels.confidence)
    cells = [
        _cell_of(candidates, winner, float(radius), levels, among)
        for winner, radius in zip(winners, radii, strict=True)
    ]
    is_bound = ~are_exact(radii, candidates.exact_step)
    columns: dict[str, Any] = {
        "num_models": [num_models] * radii.size,
        "num_certified": [cell["num_certified"] for cell in cells],
        "accuracy": accuracy,
        "is_lower_bound": is_bound,
        "num_seeds": [0 if winner is None else len(winner.replicates) for winner in winners],
        **{name: [cell[name] for cell in cells] for name in ("seed_sd", "lower", "upper", "monte_carlo_upper")},
        "band_lower": np.maximum(accuracy - half_width, 0.0),
        "band_upper": np.minimum(accuracy + half_width, 1.0),
        "high_probability": [cell["high_probability"] for cell in cells],
        "n_limited": _n_limited(candidates, winners, radii),
        **{
            name: [winner.mean(attrgetter(name)) if winner else math.nan for winner in winners]
            for name in ("average_radius", "abstention_rate")
        },
        "printed": _printed(candidates, radii),
        "model": ["" if winner is None else winner.name for winner in winners],
    }
    for name in ("seed_sd", "lower", "upper", "monte_carlo_upper", "band_lower", "band_upper"):
        columns[name] = np.where(is_bound, np.nan, columns[name])
    return {f"{prefix}{name}": _column(values) for name, values in columns.items()}


def _cell_of(
    candidates: Candidates, winner: Candidate | None, radius: float, levels: Levels, among: int
) -> dict[str, float]:
    """The statistics of a cell; for several seeds, the mean of their numbers and the sum of their errors."""
    num_images, models = candidates.num_images, winner.replicates if winner else ()
    counts = np.array([int(model.curve_among(candidates.is_reported).num_certified(radius)) for model in models] or [0])
    lower, upper = two_sided_interval(counts, num_images, (1 - levels.confidence) / counts.size)
    possible = [monte_carlo_upper(model, np.array([radius]), candidates.is_reported)[0] for model in models]
    alpha = candidates.models[0].parameters.alpha
    num_false = math.nan if alpha is None else max_false_certificates(num_images, alpha, levels.rho / among)
    return {
        "num_certified": int(counts[0]) if counts.size == 1 else float(counts.mean()),
        "seed_sd": float(np.std(counts / num_images, ddof=1)) if counts.size > 1 else math.nan,
        "lower": float(np.mean(lower)),
        "upper": float(np.mean(upper)),
        "monte_carlo_upper": float(np.mean(possible)) if possible else math.nan,
        "high_probability": float(np.mean(np.maximum(counts - num_false, 0))) / num_images,
    }


def _printed(candidates: Candidates, radii: npt.NDArray[np.float64]) -> list[float]:
    """The paper's envelope for the same method and dataset; nan where the paper prints none."""
    known = [model.parameters for model in candidates.models]
    methods = {parameters.method for parameters in known}
    row = printed_envelope(known[0].dataset, methods.pop() or "") if len(methods) == 1 else None
    if row is None:
        return [math.nan] * radii.size
    # Unlike a model's row, an envelope is not 0 beyond the last radius that the paper prints.
    percents = [row.percent_at(float(radius)) if radius <= row.last_radius + 1e-9 else None for radius in radii]
    return [math.nan if percent is None else percent / 100 for percent in percents]


def _n_limited(
    candidates: Candidates, winners: Sequence[Candidate | None], radii: npt.NDArray[np.float64]
) -> list[bool]:
    def limit(one: Candidate) -> float:
        return n_limited_radius(one.parameters.sigma_cert, one.parameters.n, one.parameters.alpha)

    farthest = max(map(limit, candidates.by_label.values()))  # applies where no model certifies anything
    limits = [limit(winner) if winner else farthest for winner in winners]
    return [bool(radius > limit_at) for radius, limit_at in zip(radii, limits, strict=True)]
