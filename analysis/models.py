"""Certified models as analysis sees them, and which of them may be compared."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from analysis.selection import Parameters
from jobs.datasets import dataset_info
from jobs.errors import RecordError
from jobs.specs.keys import decimal
from smoothing.accuracy import AccuracyCurve
from smoothing.distributions import noise_distribution

ROW_COLUMNS = ("index", "prediction", "correct", "radius", "count_top", "n_used", "stop")
"""What the envelope and its statistics need of each image; a file of many models is read in a second
because the rest stays on the disk."""

VOTE_COLUMNS = ("label", "counts0", "p_lower")
"""What it takes besides to certify anew from the votes."""

REPORT_COLUMNS = ("p_lower", "elapsed_s")
"""What it takes besides to report bounds and cost."""

_NAMED = 5  # how many missing models a message names


@dataclass(frozen=True, kw_only=True, eq=False)
class CertifiedModel:
    """One certified model of a grid.

    Attributes:
        label: Short and unique within the grid, for tables: pgd-s0.25-e0.50-m4-t2.
        parameters: What is known of it.
        rows: ROW_COLUMNS and what else was asked for, one row per image, indices ascending. A column that
            the records leave null is null here.
    """

    label: str
    parameters: Parameters
    rows: pa.Table

    @cached_property
    def curve(self) -> AccuracyCurve:
        """Its certified accuracy."""
        return AccuracyCurve.from_records(self.column("correct"), self.column("radius"))

    @cached_property
    def indices(self) -> npt.NDArray[np.int32]:
        """Dataset indices of its images, ascending."""
        return np.asarray(self.column("index"))

    @cached_property
    def total_variation(self) -> float:
        """Total variation distance between the noise as drawn and the ideal noise; 0 where unknown."""
        known = self.parameters
        if known.noise is None:
            return 0.0
        info = dataset_info(known.dataset)
        return noise_distribution(known.noise, known.sigma_cert, info.num_levels).total_variation(
            math.prod(info.image_shape)
        )

    def column(self, name: str) -> npt.NDArray[Any]:
        """A column of the rows as an array, shape (N,)."""
        return np.asarray(self.rows[name].to_numpy())

    def has(self, name: str) -> bool:
        """Whether this column was read and the records give it for every image."""
        return name in self.rows.column_names and not self.rows[name].null_count


@dataclass(frozen=True, kw_only=True, eq=False)
class CertifiedGrid:
    """All models of a grid that can be compared.

    Attributes:
        name: The grid.
        models: In the grid's order, all certified on the same images with the same n and alpha.
        missing: In words, the models left out because they are not complete; empty for a complete grid.
        is_imported: Whether the records are others' logs.
    """

    name: str
    models: tuple[CertifiedModel, ...]
    missing: tuple[str, ...]
    is_imported: bool = False

    @property
    def num_missing(self) -> int:
        """Models left out."""
        return len(self.missing)


def check_comparable(models: Sequence[Parameters], images: Sequence[str]) -> None:
    """Raise RecordError unless all models are certified on the same images with the same n and alpha.

    Args:
        models: At least one.
        images: Per model, its index set in words.
    """
    first, first_images = models[0], images[0]
    for other, other_images in zip(models, images, strict=True):
        for what, names, ours, theirs in (
            (
                "images",
                ("dataset", "split", "images"),
                _images_of(first, first_images),
                _images_of(other, other_images),
            ),
            ("n", ("n",), first.n, other.n),
            ("alpha", ("alpha",), first.alpha, other.alpha),
        ):
            if ours != theirs:
                told = [name for name in names if getattr(first, name) != getattr(other, name)] or ["dataset"]
                raise RecordError(
                    f"mixed grid: {what} differ, so its models cannot be compared: {first.train_key} has {ours}, "
                    f"{other.train_key} has {theirs}; take one kind with where, for example "
                    f'"where={{{told[0]}: {getattr(first, told[0])!r}}}", or launch two grids'
                )


def _images_of(known: Parameters, indices: str) -> str:
    return " ".join(text for text in (known.dataset, known.split, indices, known.images) if text)


def image_set(indices: npt.NDArray[np.int32]) -> str:
    """A set of indices in words: 500 images, 0 to 9980 by 20."""
    steps = np.unique(np.diff(indices))
    by = f" by {steps[0]}" if steps.size == 1 else ""
    return f"{indices.size} images, {indices[0]} to {indices[-1]}{by}"


def label_models(parameters: Sequence[Parameters], tables: Sequence[pa.Table]) -> tuple[CertifiedModel, ...]:
    """Models with labels that are unique among them."""
    return tuple(
        CertifiedModel(label=label, parameters=known, rows=table)
        for label, known, table in zip(_labels(parameters), parameters, tables, strict=True)
    )


def incomplete_message(grid: str, num_models: int, gaps: list[str], remedy: str) -> str:
    """What to say of a grid of which something is missing: the first few by name, and what to do."""
    named = [f"  {gap}" for gap in gaps[:_NAMED]]
    if len(gaps) > _NAMED:
        named.append(f"  and {len(gaps) - _NAMED} more")
    return "\n".join(
        [
            f"grid {grid} is incomplete: {len(gaps)} of {num_models} models",
            *named,
            f"{remedy}, or draw what is there with allow_partial=true",
        ]
    )


def _labels(models: Sequence[Parameters]) -> list[str]:
    """The keys without dataset and hash; where that names two, with as much more as tells them apart."""
    labels = [model.train_key.removeprefix(f"{model.dataset}-").rpartition("-")[0] for model in models]
    for detail in _DETAILS:
        shared = {label for label, count in Counter(labels).items() if count > 1}
        labels = [
            label + detail(model) if label in shared else label for label, model in zip(labels, models, strict=True)
        ]
    return labels


_DETAILS: tuple[Callable[[Parameters], str], ...] = (
    lambda model: f" ({model.variant})" if model.variant else "",
    lambda model: "" if model.is_certified_as_trained else f" at {decimal(model.sigma_cert)}",
    lambda model: f" {model.train_key.rpartition('-')[2]}",
    lambda model: f" {model.certify_key}",
)
