"""A grid file's blocks, multiplied out into runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from jobs.datasets import dataset_info
from jobs.errors import ConfigError
from jobs.indices import IndexRange
from jobs.manifest import Manifest, Run
from jobs.specs import CertifySpec, TrainSpec
from jobs.validation import build, unknown_choice
from pipeline.config import LaunchConfig

T = TypeVar("T")

_AXES = [*(field.name for field in fields(TrainSpec)), "sigma_cert"]


def expand(config: LaunchConfig) -> Manifest:
    """All runs of a grid, in the order of its file, each once.

    Raises:
        ConfigError: With the problems of all blocks: unknown axes, empty products, values out of
            range, exclusions that match nothing.
    """
    problems: list[str] = []
    runs: dict[tuple[str, str, IndexRange], Run] = {}
    excluded_by: set[int] = set()
    for block_nr, block in enumerate(config.grid.blocks):
        where = f"grid.blocks[{block_nr}]"
        points, block_problems = _points(block, where)
        problems += block_problems
        kept = 0
        for point in points:
            matches = {nr for nr, rule in enumerate(config.grid.exclude) if _agrees(config.train, point, rule)}
            excluded_by |= matches
            if matches:
                continue
            kept += 1
            try:
                run = _run(config, point)
            except ConfigError as error:
                problems += [f"{where}: {problem}" for problem in error.problems]
                continue
            runs.setdefault((run.train.key, run.certify.key, run.indices), run)
        if not kept and not block_problems:
            problems.append(f"{where}: expands to nothing: every model of it is excluded")
    for nr, rule in enumerate(config.grid.exclude):
        if nr not in excluded_by:
            problems.append(f"grid.exclude[{nr}]: {dict(rule)} matches no model; correct it or remove it")
    if not config.grid.blocks:
        problems.append("grid.blocks: expands to nothing: there is no block")
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return Manifest(grid=config.grid.name, runs=tuple(runs.values()))


def _points(block: Mapping[str, Any], where: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The product of a block's axes, and what is wrong with the axes."""
    problems = [f"{where}: {unknown_choice('axis', axis, _AXES)}" for axis in block if axis not in _AXES]
    axes = {axis: value if isinstance(value, list) else [value] for axis, value in block.items()}
    problems += [f"{where}: expands to nothing: {axis} is an empty list" for axis, values in axes.items() if not values]
    if not axes:
        problems.append(f"{where}: expands to nothing: the block is empty")
    if problems:
        return [], problems
    return list(_product(axes)), []


def _product(axes: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _agrees(base: Mapping[str, Any], point: Mapping[str, Any], rule: Mapping[str, Any]) -> bool:
    model = {**base, **point}
    return bool(rule) and all(key in model and model[key] == value for key, value in rule.items())


def _run(config: LaunchConfig, point: Mapping[str, Any]) -> Run:
    values, certify_values = {**config.train, **point}, dict(config.certify)
    index_values = certify_values.pop("indices", None) or {}
    # The block's sigma_cert, else the certify group's, else the sigma of training.
    for sigma_cert in (values.pop("sigma_cert", None), certify_values.get("sigma_cert"), values.get("sigma")):
        if sigma_cert is not None:
            certify_values["sigma_cert"] = sigma_cert
            break
    problems: list[str] = []
    train = _collect(problems, TrainSpec, values, where="train")
    certify_values["train_key"] = train.key if train else ""
    certify = _collect(problems, CertifySpec, certify_values, where="certify")
    if train is None or certify is None:
        raise ConfigError(problems)
    return Run(train=train, certify=certify, indices=_indices(train.dataset, certify, index_values))


def _indices(dataset: str, certify: CertifySpec, values: Mapping[str, Any]) -> IndexRange:
    size = dataset_info(dataset).num_images[certify.split]
    stop = values.get("stop")
    indices = build(IndexRange, {**values, "stop": size if stop is None else stop}, where="certify.indices")
    if indices.stop > size:
        raise ConfigError(
            [f"certify.indices.stop: {indices.stop} is beyond the {size} images of {dataset}'s {certify.split} split"]
        )
    return indices


def _collect(problems: list[str], cls: type[T], values: Mapping[str, Any], *, where: str) -> T | None:
    """``build``, with the problems added to a list instead of raised."""
    try:
        return build(cls, values, where=where)
    except ConfigError as error:
        problems += error.problems
        return None
