"""Expands the blocks of a grid file into runs."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from jobs.errors import ConfigError, refuse
from jobs.specs.certify import CertifySpec
from jobs.specs.indices import Indices
from jobs.specs.runs import GridName, Manifest, Place, Run
from jobs.specs.train import TrainSpec
from jobs.validation import STRICT, collect, unknown_choice
from pipeline.request.axes import expand_attacks, image_indices, product_of
from pipeline.request.checkpoints import DENOISER_AXIS, FILE_AXES, sha256_of, weights_file
from pipeline.request.ensembles import ensemble_fields, member_keys
from pipeline.request.lengths import task_problems, train_problems
from pipeline.request.plugins import Plugins, is_plugin_axis

_FIELDS = [field.name for field in fields(TrainSpec) if not field.name.endswith("_sha256")]
_AXES = [*_FIELDS, "sigma_cert", *FILE_AXES, DENOISER_AXIS]
"""Other axes are plug-ins and their options: objective, objective.NAME."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GridConfig:
    """A grid as written in its file."""

    name: GridName  # names the folder of its results
    # Each maps axes to a value or a list of values, and stands for all combinations. Axes are fields of TrainSpec,
    # sigma_cert, weights (a path or run:TRAIN_KEY), plug-ins (``module:name``) and their options.
    blocks: list[dict[str, Any]]
    # A model that matches all values of one of these mappings is left out
    exclude: list[dict[str, Any]] = Field(default_factory=list)


def expand(
    grid: GridConfig,
    train: Mapping[str, Any],
    certify: Mapping[str, Any],
    *,
    attack: Mapping[str, Any] | None = None,
    data: Mapping[str, str | None] | None = None,
    plugins: Plugins | None = None,
    results: Path = Path(),
) -> Manifest:
    """All runs of a grid, in the order of its file, each once; raises ConfigError with the problems of all blocks.

    Args:
        grid: The grid file.
        train: Fields of TrainSpec, which the blocks complete.
        certify: Fields of CertifySpec except the train key, and ``indices``: which images.
        attack: As for ``expand_attacks``; empty for no attacks.
        data: Folders of datasets, where a tree of images shows how many there are.
        plugins: Those that ``models_of`` names.
        results: The results folder, with the finished runs whose weights a block may name.
    """
    problems: list[str] = []
    runs: dict[tuple[Place, Indices], Run] = {}
    excluded_by: set[int] = set()
    for block_nr, block in enumerate(grid.blocks):
        where = f"grid.blocks[{block_nr}]"
        points, block_problems = _points(block, where)
        problems += block_problems
        kept = 0
        for point in points:
            model = {**train, **point}
            matches = {nr for nr, rule in enumerate(grid.exclude) if rule and rule.items() <= model.items()}
            excluded_by |= matches
            if matches:
                continue
            kept += 1
            try:
                run = _run(point, train, certify, data or {}, plugins or Plugins(), results)
            except ConfigError as error:
                problems += [_in_block(problem, block, where) for problem in error.problems]
                continue
            runs.setdefault((run.place, run.indices), run)
        if not kept and not block_problems:
            problems.append(f"{where}: grid.exclude excludes all of its models; correct the rules or remove the block")
    for nr, rule in enumerate(grid.exclude):
        unknown = _unknown_axes(rule, f"grid.exclude[{nr}]")
        problems += unknown
        if nr not in excluded_by and not unknown:
            problems.append(f"grid.exclude[{nr}]: {dict(rule)} matches no model; correct it or remove it")
    if not grid.blocks:
        problems.append("grid.blocks: the list is empty; write at least one block")
    refuse(problems)
    attacks = expand_attacks(list(runs.values()), attack, data or {}) if attack else ()
    return Manifest(grid=grid.name, runs=(*runs.values(), *attacks))


def models_of(grid: GridConfig, train: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The values of every model of a grid, including invalid ones."""
    for block in grid.blocks:
        for point in _points(block, "")[0]:
            yield {**train, **point}


def _points(block: Mapping[str, Any], where: str) -> tuple[list[dict[str, Any]], list[str]]:
    """All combinations of a block's axes, and problems with the axes."""
    points, empty = product_of(block, where)
    problems = _unknown_axes(block, where) + empty
    if not block:
        problems.append(f"{where}: the block is empty; write at least one key with a value")
    return [] if problems else points, problems


def _in_block(problem: str, block: Mapping[str, Any], where: str) -> str:
    """A problem of a value that a block sets, at its place there: not ``train.sigma``, but ``grid.blocks[1].sigma``."""
    key = re.match(r"(?:train|certify)\.([\w.]+)(?=:)", problem)
    return f"{where}.{problem[key.start(1) :]}" if key and key[1] in block else problem


def _unknown_axes(mapping: Mapping[str, Any], where: str) -> list[str]:
    return [
        f"{where}: {unknown_choice('axis', axis, _AXES)}"
        for axis in mapping
        if axis not in _AXES and not is_plugin_axis(axis)
    ]


def _run(
    point: Mapping[str, Any],
    base_train: Mapping[str, Any],
    base_certify: Mapping[str, Any],
    data: Mapping[str, str | None],
    plugins: Plugins,
    results: Path,
) -> Run:
    values, certify_values = {**base_train, **point}, dict(base_certify)
    index_values = certify_values.pop("indices", None)
    of_block = values.pop("sigma_cert", None)
    problems = [
        f"{group}.{key}: set by the launcher; remove it"
        for group, given, key in (("train", values, "checkpoint_sha256"), ("certify", certify_values, "train_key"))
        if key in given
    ]
    checkpoint = None
    try:
        if member_keys(values):
            values = ensemble_fields(values, point, results)
        else:
            checkpoint, denoiser = weights_file(values, results), sha256_of(values.get(DENOISER_AXIS), DENOISER_AXIS)
            left_out = (*FILE_AXES, DENOISER_AXIS)
            values = plugins.resolved({axis: value for axis, value in values.items() if axis not in left_out})
            values |= {"checkpoint_sha256": sha256_of(checkpoint), "denoiser_sha256": denoiser}
    except ConfigError as error:
        problems += error.problems
    # The block's sigma_cert, else the certify group's, else the sigma of training.
    for sigma_cert in (of_block, certify_values.get("sigma_cert"), values.get("sigma")):
        if sigma_cert is not None:
            certify_values["sigma_cert"] = sigma_cert
            break
    if checkpoint is not None and values.get("init", "take") == "take":
        problems += [
            f"train.{name}: a value is required, because {checkpoint} does not say how it was trained; write "
            f"train.{name}=VALUE"
            for name in ("method", "sigma")
            if values.get(name) is None
        ]
    refuse(problems)
    train = collect(problems, TrainSpec, values, where="train")
    certify_values["train_key"] = train.key if train else ""
    certify = collect(problems, CertifySpec, certify_values, where="certify")
    if train is not None:
        problems += train_problems(train)
        problems += task_problems(train, certify) if certify else []
    if train is None or certify is None or problems:
        raise ConfigError(problems)
    indices = image_indices(train, certify.split, index_values, data, where="certify.indices")
    return Run(train=train, task=certify, indices=indices)
