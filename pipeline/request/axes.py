"""The attack group, multiplied out over the models of a grid."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobs.datasets import Split, count_images
from jobs.errors import ConfigError
from jobs.specs.attack import AttackSpec
from jobs.specs.indices import IndexRange
from jobs.specs.runs import Place, Run
from jobs.validation import build, collect
from pipeline.request.lengths import task_problems


def expand_attacks(runs: Sequence[Run], attack: Mapping[str, Any], data: Mapping[str, str | None]) -> tuple[Run, ...]:
    """Every attack of the group on every smoothed classifier of a grid, each once.

    Args:
        runs: The grid's; sigma_cert is the attack's sigma where the group names none.
        attack: Fields of AttackSpec but for the train key, each a value or a list of values, and
            ``indices``.
        data: Folders of datasets.

    Raises:
        ConfigError: Unknown or empty axes, or values out of range.
    """
    values = dict(attack)
    index_values = values.pop("indices", None)
    axes = {axis: value if isinstance(value, list) else [value] for axis, value in values.items()}
    problems = [f"attack: expands to nothing: {axis} is an empty list" for axis, choices in axes.items() if not choices]
    if "train_key" in values:
        problems.append("attack.train_key: the launch fills that in; leave it out")
    found: dict[Place, Run] = {}
    for run, point in itertools.product(runs, list(product_of(axes))):
        fields = {**point, "train_key": run.train.key}
        if fields.get("sigma") is None:
            fields["sigma"] = run.task.sigma
        spec = collect(problems, AttackSpec, fields, where="attack")
        if spec is not None:
            problems += task_problems(run.train, spec)
            indices = image_indices(run.train.dataset, spec.split, index_values, data, where="attack.indices")
            attacked = Run(train=run.train, task=spec, indices=indices)
            found.setdefault(attacked.place, attacked)
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return tuple(found.values())


def image_indices(
    dataset: str, split: Split, values: object, data: Mapping[str, str | None], *, where: str
) -> IndexRange:
    """The images that start, stop and step name; a stop of None is the size of the split.

    Args:
        dataset: Its name.
        split: Of the dataset.
        values: As configured: a mapping; None for all images.
        data: Folders of datasets.
        where: What the values are, as the user knows them, to begin messages.

    Raises:
        ConfigError: They are not there, or there are none.
    """
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        raise ConfigError([f"{where}: write start, stop and step, for example {{stop: 100}}, got {values!r}"])
    size = count_images(dataset, split, data)
    stop = values.get("stop")
    indices = build(IndexRange, {**values, "stop": size if stop is None else stop}, where=where)
    if indices.stop > size:
        raise ConfigError([f"{where}.stop: {indices.stop} is beyond the {size} images of {dataset}'s {split} split"])
    return indices


def product_of(axes: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Every choice of one value for each axis, the last axis running fastest."""
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))
