"""Certified models, their labels, and whether they can be compared."""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from analysis.selection import Parameters
from jobs.datasets import DatasetInfo, dataset_info, differ, short_fingerprint
from jobs.errors import RecordError
from jobs.files.summary import Summary
from jobs.specs.keys import decimal
from jobs.wording import counted
from smoothing.accuracy import AccuracyCurve
from smoothing.distributions import noise_distribution
from smoothing.radius import ABSTAIN

ROW_COLUMNS = ("index", "prediction", "correct", "radius", "count_top", "n_used", "stop")
"""The columns that the envelope and its statistics need. Reading no others keeps it to a second."""

VOTE_COLUMNS = ("label", "counts0", "p_lower")
"""Further columns for recomputing certificates from the votes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CertifiedModel:
    """One certified model of a grid: a trained classifier with the noise it is certified under."""

    label: str  # short name for tables, unique within the grid: pgd-s0.25-e0.50-m4-t2
    parameters: Parameters  # what is known about it
    # ROW_COLUMNS and the further columns requested, null as in the records; one row per image, indices ascending
    rows: pa.Table = field(default_factory=lambda: pa.table({}))
    summary: Summary = field(default_factory=Summary)  # of columns that rows may lack
    clean_accuracy: float = math.nan  # of the base classifier on images without noise, in [0, 1]; nan if unknown
    shared_label: str = ""  # the label of its recipe, without the seed; empty: its own
    info: DatasetInfo | None = None  # the entry of its dataset; None is that of the dataset of this name

    def lean(self, columns: Sequence[str] = ("index",)) -> "CertifiedModel":
        """A copy with only these columns, and with the sums over all images that tables and figures show."""
        lean = replace(self, rows=self.rows.select(list(columns)))
        vars(lean).update({name: getattr(self, name) for name in _OF_ALL_IMAGES})
        return lean

    def among(self, images: npt.NDArray[np.bool_]) -> "CertifiedModel":
        """The model on some of its images, bool, shape (N,), at least one."""
        return self if images.all() else replace(self, rows=self.rows.filter(pa.array(images)))

    @property
    def recipe_label(self) -> str:
        """The common name of models that differ only in their seed."""
        return self.shared_label or self.label

    @cached_property
    def curve(self) -> AccuracyCurve:
        """Certified accuracy over radius."""
        return AccuracyCurve.from_records(self.column("correct"), self.column("radius"))

    @cached_property
    def average_radius(self) -> float:
        """The area under the curve; nan if sampling stopped for a grid of radii, between which it is a lower bound."""
        if self.parameters.stop_rule == "grid":
            return math.nan
        return float(np.where(self.column("correct"), self.column("radius"), 0.0).mean())

    @cached_property
    def abstention_rate(self) -> float:
        """The share of images on which it abstains, in [0, 1]; nan if sampling may have ended before that was known."""
        if not self.has("stop") or self.stops != {"full"}:
            return math.nan
        return float(np.mean(self.column("prediction") == ABSTAIN))

    @cached_property
    def votes_against(self) -> npt.NDArray[np.int32] | None:
        """Draws that were not for the class selected, of each image that may be correct, ascending.

        None if the records contain no votes, or if sampling was stopped by a lower bound. An image that abstains
        may be correct, whatever its class; one that ``stop_wrong`` ended has no votes and may not.
        """
        if not all(self.has(name) for name in ("count_top", "n_used", "stop")) or "decided" in self.stops:
            return None
        # If selection chose a wrong class, nothing more is drawn, and no votes to come could make it correct.
        is_open = (self.column("prediction") == ABSTAIN) & ~self.stopped("wrong_class")
        return np.sort((self.column("n_used") - self.column("count_top"))[self.column("correct") | is_open])

    def stopped(self, way: str) -> npt.NDArray[np.bool_]:
        """Whether the sampling of each image ended in this way, shape (N,)."""
        return np.asarray(pc.equal(self.rows["stop"], way))

    @cached_property
    def stops(self) -> set[str]:
        """The ways in which sampling ended."""
        return set(pc.unique(self.rows["stop"]).to_pylist())

    @cached_property
    def indices(self) -> npt.NDArray[np.int32]:
        """Dataset indices of its images, ascending."""
        return np.asarray(self.column("index"))

    @cached_property
    def total_variation(self) -> float:
        """Total variation distance between the noise as drawn and the ideal noise; 0 if unknown."""
        known = self.parameters
        if known.noise is None:
            return 0.0
        info = self.info or dataset_info(known.dataset)
        distribution = noise_distribution(known.noise, known.sigma_cert, info.num_levels)
        return distribution.total_variation(math.prod(info.image_shape))

    def column(self, name: str) -> npt.NDArray[Any]:
        """A column of the rows as an array, shape (N,)."""
        return np.asarray(self.rows[name].to_numpy())

    def has(self, name: str) -> bool:
        """Whether this column was read and has a value for every image."""
        return name in self.rows.column_names and not self.rows[name].null_count


_OF_ALL_IMAGES = ("curve", "average_radius", "abstention_rate", "votes_against")


@dataclass(frozen=True, kw_only=True, eq=False)
class CertifiedGrid:
    """The certified models of a grid that can be compared."""

    name: str
    models: tuple[CertifiedModel, ...]  # in the grid's order, all certified on the same images, with one n and alpha
    missing: tuple[str, ...]  # one text per certified model left out as incomplete; empty for a complete grid
    is_imported: bool = False  # whether the records were imported from logs


def check_comparable(models: Sequence[Parameters], images: Sequence[str], remedy: str | None = None) -> None:
    """Raise RecordError unless all models are certified on the same images, given in words, with the same n and alpha.

    ``remedy`` is what to do if they differ; None: select some of a grid's models.
    """
    first, first_images = models[0], images[0]
    for other, other_images in zip(models, images, strict=True):
        same = (first.dataset, first.split, first_images) == (other.dataset, other.split, other_images)
        if not same or (first.images and other.images and differ(first.images, other.images)):
            what, names = "on different images", ["dataset", "split", "images"]
            ours, theirs = _images_of(first, first_images), _images_of(other, other_images)
        elif (first.n, first.alpha) != (other.n, other.alpha):
            names = ["n"] if first.n != other.n else ["alpha"]
            what = f"with different {names[0]}"
            ours, theirs = getattr(first, names[0]), getattr(other, names[0])
        else:
            continue
        raise RecordError(
            f"models certified {what} cannot be compared: {first.train_key} has {ours}, "
            f"{other.train_key} has {theirs}; {remedy or _selection(first, other, names)}"
        )


def _selection(first: Parameters, other: Parameters, names: Sequence[str]) -> str:
    """How to select models like the first, by the parameter that distinguishes it from the other if there is one."""
    for name in names:
        if getattr(first, name) != getattr(other, name):
            example = f'"where={{{name}: {getattr(first, name)!r}}}"'
            return f"select one kind with where, for example {example}, or launch two grids"
    return "launch two grids"


def _images_of(known: Parameters, indices: str) -> str:
    images = f"({short_fingerprint(known.images)})" if known.images else ""
    return " ".join(text for text in (known.dataset, known.split, indices, images) if text)


def image_set(indices: npt.NDArray[np.int32]) -> str:
    """A set of indices as text: 500 images, 0 to 9980 by 20."""
    steps = np.unique(np.diff(indices))
    by = f" by {steps[0]}" if steps.size == 1 else ""
    return f"{counted(indices.size, 'image')}, {indices[0]} to {indices[-1]}{by}"


class _OnImages(Protocol):
    @property
    def indices(self) -> npt.NDArray[np.int32]: ...


Some = TypeVar("Some", bound=_OnImages)
Key = TypeVar("Key", bound=Hashable)


def short_ones(items: Iterable[Some], list_of: Callable[[Some], object]) -> Iterator[tuple[Some, int]]:
    """Those with only part of the images that most others on the same list of images have, and the number of these."""
    groups: dict[object, list[Some]] = {}
    for item in items:
        groups.setdefault(list_of(item), []).append(item)
    for group in groups.values():
        usual = Counter(item.indices.tobytes() for item in group).most_common(1)[0][0]
        whole = np.frombuffer(usual, np.int32)
        for item in group:
            if item.indices.size < whole.size and np.isin(item.indices, whole, assume_unique=True).all():
                yield item, whole.size


def label_models(parameters: Mapping[Key, Parameters]) -> dict[Key, CertifiedModel]:
    """Models without rows, with unique labels; those of one recipe differ only in the seed of their label."""
    recipes: dict[object, list[Key]] = {}
    for key, known in parameters.items():
        recipes.setdefault(known.recipe or key, []).append(key)
    models = {}
    for label, group in zip(
        _labels([parameters[group[0]] for group in recipes.values()]), recipes.values(), strict=True
    ):
        seeds = Counter(parameters[key].seed for key in group)
        for key in group:
            known = parameters[key]
            more = f" {known.certify_key.rpartition('-')[2]}" if seeds[known.seed] > 1 else ""
            own = f"{label} seed {known.seed}{more}" if len(group) > 1 else label
            models[key] = CertifiedModel(label=own, shared_label=label, parameters=known)
    return {key: models[key] for key in parameters}


def incomplete_message(grid: str, num_models: int, gaps: list[str], remedy: str) -> str:
    """The message for an incomplete grid: the first few missing models by name, and what to do."""
    more = [f"and {len(gaps) - 5} more"] if len(gaps) > 5 else []
    named = "".join(f"  {gap}\n" for gap in [*gaps[:5], *more])
    return (
        f"grid {grid} is incomplete: missing {len(gaps)} of {counted(num_models, 'certified model')}\n"
        f"{named}{remedy}, or use only the complete ones with allow_partial=true"
    )


def _labels(models: Sequence[Parameters]) -> list[str]:
    """The training keys without dataset and hash, with details if two would be equal."""
    labels = [model.train_key.removeprefix(f"{model.dataset}-").rpartition("-")[0] for model in models]
    for detail in _DETAILS:
        counts = Counter(labels)
        labels = [
            label + detail(one) if counts[label] > 1 else label for label, one in zip(labels, models, strict=True)
        ]
    return labels


_DETAILS: tuple[Callable[[Parameters], str], ...] = (
    lambda model: f" ({model.variant})" if model.variant else "",
    lambda model: "" if model.sigma_train == model.sigma_cert else f" at {decimal(model.sigma_cert)}",
    lambda model: f" {model.train_key.rpartition('-')[2]}",
    lambda model: f" {model.certify_key}",
)
