"""The attacks of a grid: the attack group applied to every model. And the images that a list, range or file names."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.datasets import Split, count_images
from jobs.errors import ConfigError, refuse
from jobs.specs.attack import AttackSpec
from jobs.specs.indices import IndexRange, Indices, as_indices
from jobs.specs.runs import Place, Run
from jobs.specs.train import TrainSpec
from jobs.validation import build, collect
from pipeline.request.lengths import task_problems

_NAMED = 3  # values that a message names


def expand_attacks(runs: Sequence[Run], attack: Mapping[str, Any], data: Mapping[str, str | None]) -> tuple[Run, ...]:
    """Every attack of the group on every smoothed classifier of a grid, each once.

    ``attack`` has the fields of AttackSpec except the train key, each a value or a list of values, and ``indices``.
    Without a sigma, the attack uses sigma_cert. Raises ConfigError with all problems.
    """
    values = dict(attack)
    index_values = values.pop("indices", None)
    points, problems = product_of(values, "attack")
    if "train_key" in values:
        problems.append("attack.train_key: set by the launcher; remove it")
    found: dict[Place, Run] = {}
    for run, point in itertools.product(runs, points):
        fields = {**point, "train_key": run.train.key}
        if fields.get("sigma") is None:
            fields["sigma"] = run.task.sigma
        spec = collect(problems, AttackSpec, fields, where="attack")
        if spec is not None:
            problems += task_problems(run.train, spec)
            indices = image_indices(run.train, spec.split, index_values, data, where="attack.indices")
            attacked = Run(train=run.train, task=spec, indices=indices)
            found.setdefault(attacked.place, attacked)
    refuse(problems)
    return tuple(found.values())


def image_indices(
    train: TrainSpec, split: Split, values: object, data: Mapping[str, str | None], *, where: str
) -> Indices:
    """The image indices that a mapping (start, stop, step), a list or the path of a file of numbers stands for.

    None stands for all images, and a stop of None for the size of the split. Raises ConfigError, with messages that
    begin with ``where``, if an index is not in the split, or there is none.
    """
    values = {} if values is None else values
    size = count_images(train.source, split, data)
    if isinstance(values, str | list):
        listed = _read_numbers(values, where) if isinstance(values, str) else values
        named = f"{where}={values}" if isinstance(values, str) else where
        return as_indices(_checked(listed, size, named, f"the {size} {split} images of {train.dataset}"))
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: write start, stop and step, a list, or the path of a file, got {values!r}")
    stop = values.get("stop")
    indices = build(IndexRange, {**values, "stop": size if stop is None else stop}, where=where)
    if indices.stop > size:
        raise ConfigError(f"{where}.stop: {indices.stop} is beyond the {size} {split} images of {train.dataset}")
    return indices


def _read_numbers(path: str, where: str) -> list[object]:
    """The numbers in a text file, separated by blanks or commas, without comments (#); other words stay strings."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise ConfigError(f"{where}={path}: cannot be read ({reason}); write the path of a file of numbers") from error
    words = [word for line in lines for word in line.partition("#")[0].replace(",", " ").split()]
    return [int(word) if word.isdecimal() else word for word in words]


def _checked(listed: list[Any], size: int, where: str, images: str) -> list[int]:
    """The indices of a list; raises ConfigError, with all problems, if one is invalid, too large or repeated."""
    wrong = [value for value in listed if type(value) is not int or value < 0]
    numbers = [value for value in listed if type(value) is int]
    problems = [f"{where}: {value!r} is not an image index (a whole number, 0 or larger)" for value in wrong[:_NAMED]]
    problems += [f"{where}: {value} is beyond {images}" for value in sorted(numbers)[-_NAMED:] if value >= size]
    twice = sorted(value for value, count in Counter(numbers).items() if count > 1)
    problems += [f"{where}: {value} is given more than once" for value in twice[:_NAMED]]
    problems += [] if listed else [f"{where}: contains no index; remove it to use all images"]
    refuse(problems)
    return numbers


def product_of(values: Mapping[str, Any], where: str) -> tuple[list[dict[str, Any]], list[str]]:
    """All combinations of one value per axis, the last varying fastest; and problems with axes whose list is empty."""
    axes = {axis: value if isinstance(value, list) else [value] for axis, value in values.items()}
    problems = [f"{where}.{axis}: the list is empty; write at least one value" for axis in axes if not axes[axis]]
    return [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())], problems
