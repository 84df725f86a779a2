"""Statistics of each cell of an envelope's table: intervals, bands, bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.compare import Candidates, Comparison
from analysis.models import CertifiedModel
from analysis.printed import printed_envelope
from smoothing.accuracy import abstention_rate
from smoothing.bands import simultaneous_half_width
from smoothing.bounds import two_sided_interval
from smoothing.bracket import min_possible_count, n_limited_radius
from smoothing.false_certificates import max_false_certificates
from smoothing.radius import ABSTAIN


@dataclass(frozen=True, kw_only=True)
class Levels:
    """Error levels.

    Attributes:
        confidence: Confidence of the intervals and of the simultaneous band, in (0, 1).
        rho: Error probability of the high-probability accuracy, in (0, 1).
    """

    confidence: float
    rho: float


def envelope_frame(comparison: Comparison, radii: Sequence[float], levels: Levels) -> pd.DataFrame:
    """One row per radius.

    Args:
        comparison: The envelopes.
        radii: Where to evaluate them.
        levels: Error levels.

    Returns:
        Columns radius, num_images; then, for the candidates and, with the prefix ``baseline_``, for the
        baseline: num_models, the certified models searched; num_certified; accuracy; lower, upper: exact
        interval for this cell alone, over test images; monte_carlo_upper: the accuracy if every image
        were as robust as its votes allow (the lower end of that bracket is the accuracy itself);
        band_lower, band_upper: simultaneous over models and radii; high_probability: lower bound on the
        share of these images that is truly certified despite false certificates; n_limited;
        average_radius, abstention_rate and model: of the model that attains the cell; printed: the
        paper's number for the same dataset. Then single_accuracy: of the best single model; gain over
        the baseline. What the records do not allow, or the paper does not print, is nan.
    """
    at = np.asarray(radii, dtype=np.float64)
    frame = pd.DataFrame({"radius": at, "num_images": comparison.candidates.num_images})
    _add(frame, comparison, comparison.candidates, levels, "")
    if comparison.baseline is not None:
        _add(frame, comparison, comparison.baseline, levels, "baseline_")
    best = best_single(comparison.candidates, radii)
    frame["single_model"] = best.label
    frame["single_accuracy"] = comparison.candidates.curves[best.label](at)
    if comparison.baseline is not None:
        frame["gain"] = frame["accuracy"] - frame["baseline_accuracy"]
    return frame


def best_single(candidates: Candidates, radii: Sequence[float]) -> CertifiedModel:
    """The model with the largest mean accuracy over the radii: the nearest to the envelope.

    Selected on the same images as the envelope; ties go to the earlier model.
    """
    scores = {label: float(curve(radii).mean()) for label, curve in candidates.selection_curves.items()}
    return candidates.models[max(scores, key=lambda label: scores[label])]


def average_radius(model: CertifiedModel) -> float:
    """Average certified radius: the area under the model's curve of certified accuracy."""
    return float(np.where(model.column("correct"), model.column("radius"), 0.0).mean())


def abstention(model: CertifiedModel) -> float:
    """The share of images on which a model abstains.

    Returns:
        In [0, 1]; nan if the records do not say how sampling ended, or if it ended early for some image:
        whether that image would have been an abstention is unknown.
    """
    if not model.has("stop"):
        return math.nan
    try:
        return abstention_rate(model.column("prediction"), model.rows["stop"].to_pylist())
    except ValueError:
        return math.nan


def monte_carlo_upper(
    model: CertifiedModel, radii: npt.NDArray[np.float64], among: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """The share of images whose votes do not rule out that they are correct at each radius.

    Args:
        model: The certified model.
        radii: r, shape (R,).
        among: Whether an image counts, bool, shape (N,).

    Returns:
        In [0, 1], shape (R,); nan if the records contain no votes, or if sampling was stopped by a lower
        bound. An image that abstains counts if its votes allow r, whatever its class, because this is an
        upper end. An image that ``stop_wrong`` ended has no votes and never counts.
    """
    known = model.parameters
    if known.n is None or known.alpha is None or not all(model.has(name) for name in ("count_top", "n_used", "stop")):
        return np.full(radii.shape, np.nan)
    stop = model.column("stop")
    if (stop == "decided").any():
        return np.full(radii.shape, np.nan)
    # If selection chose a wrong class, nothing more is drawn, and no votes to come could make it correct.
    is_open = (model.column("prediction") == ABSTAIN) & (stop != "wrong_class")
    may_be_correct = among & (model.column("correct") | is_open)
    completed = np.sort((model.column("count_top") + (known.n - model.column("n_used")))[may_be_correct])
    needed = min_possible_count(
        radii, n=known.n, sigma=known.sigma_cert, alpha=known.alpha, total_variation=model.total_variation
    )
    num_possible = completed.size - np.searchsorted(completed, needed, side="left")
    return np.asarray(num_possible / np.count_nonzero(among), dtype=np.float64)


def _add(frame: pd.DataFrame, comparison: Comparison, candidates: Candidates, levels: Levels, prefix: str) -> None:
    radii, num_images = frame["radius"].to_numpy(), candidates.num_images
    winners = [candidates.winner_at(float(radius)) for radius in radii]
    counts = candidates.num_certified_at(radii)
    accuracy = counts / num_images
    num_models = len(candidates.models)
    # If models are selected on other images, only the winners count as searched on the images reported.
    among = num_models if comparison.selection == "same" else max(1, len({id(model) for model in winners if model}))
    lower, upper = two_sided_interval(counts, num_images, 1 - levels.confidence)
    half_width = simultaneous_half_width(num_images, among, 1 - levels.confidence)
    columns: dict[str, Any] = {
        "num_models": num_models,
        "num_certified": counts,
        "accuracy": accuracy,
        "lower": lower,
        "upper": upper,
        "monte_carlo_upper": _monte_carlo(candidates, winners, radii),
        "band_lower": np.maximum(accuracy - half_width, 0.0),
        "band_upper": np.minimum(accuracy + half_width, 1.0),
        "high_probability": _high_probability(counts, num_images, candidates, levels.rho / among),
        "n_limited": _n_limited(candidates, winners, radii),
        "average_radius": _of_winners(winners, average_radius),
        "abstention_rate": _of_winners(winners, abstention),
        "printed": _printed(candidates, radii),
        "model": ["" if model is None else model.label for model in winners],
    }
    for name, values in columns.items():
        frame[f"{prefix}{name}"] = values


def _monte_carlo(
    candidates: Candidates, winners: Sequence[CertifiedModel | None], radii: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    labels = np.array(["" if model is None else model.label for model in winners])
    upper = np.full(radii.shape, np.nan)
    for label in set(labels) - {""}:
        cells = labels == label
        upper[cells] = monte_carlo_upper(candidates.models[str(label)], radii[cells], candidates.is_reported)
    return upper


def _printed(candidates: Candidates, radii: npt.NDArray[np.float64]) -> list[float]:
    """The paper's envelope for the same method and dataset; nan where it prints none."""
    known = [model.parameters for model in candidates.models.values()]
    methods = {parameters.method for parameters in known}
    row = printed_envelope(known[0].dataset, methods.pop() or "") if len(methods) == 1 else None
    if row is None:
        return [math.nan] * radii.size
    # Unlike a model's row, an envelope is not 0 beyond the last radius that the paper prints.
    percents = [row.percent_at(float(radius)) if radius <= row.last_radius + 1e-9 else None for radius in radii]
    return [math.nan if percent is None else percent / 100 for percent in percents]


def _of_winners(winners: Sequence[CertifiedModel | None], value_of: Callable[[CertifiedModel], float]) -> list[float]:
    by_label = {model.label: value_of(model) for model in {id(one): one for one in winners if one}.values()}
    return [math.nan if model is None else by_label[model.label] for model in winners]


def _high_probability(
    counts: npt.NDArray[np.int64], num_images: int, candidates: Candidates, rho: float
) -> npt.NDArray[np.float64]:
    alpha = next(iter(candidates.models.values())).parameters.alpha
    if alpha is None:
        return np.full(counts.size, np.nan)
    num_false = max_false_certificates(num_images, alpha, rho)
    return np.maximum(counts - num_false, 0) / num_images


def _n_limited(
    candidates: Candidates, winners: Sequence[CertifiedModel | None], radii: npt.NDArray[np.float64]
) -> list[bool]:
    limits = {label: _n_limit(model) for label, model in candidates.models.items()}
    farthest = max(limits.values())  # applies where no model certifies anything
    return [
        bool(radius > (farthest if model is None else limits[model.label]))
        for model, radius in zip(winners, radii, strict=True)
    ]


def _n_limit(model: CertifiedModel) -> float:
    known = model.parameters
    return n_limited_radius(known.sigma_cert, known.n, known.alpha)
