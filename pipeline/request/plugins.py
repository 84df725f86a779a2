"""The plug-ins that a grid names, and what keys contain about them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from jobs.errors import ConfigError, refuse
from jobs.plugins import DATA_FILES, Plugin, PluginKind
from jobs.plugins.files import read_plugins
from jobs.plugins.isolated import ask
from jobs.specs.keys import canonical_json
from pipeline.request.ensembles import member_keys

_KINDS: tuple[PluginKind, ...] = get_args(PluginKind)
_NAMED_BY: Mapping[PluginKind, str] = {"model": "architecture", "data": "dataset"}
"""These fields take the name of a plug-in too."""


def is_plugin_axis(axis: str) -> bool:
    """Whether an axis of a block is a plug-in or an option of one: objective, objective.weight."""
    return axis.partition(".")[0] in _KINDS


@dataclass(frozen=True, kw_only=True)
class Plugins:
    """The plug-ins of a launch."""

    # Their files, by their path in the folder from which they are imported
    contents: Mapping[str, bytes] = field(default_factory=dict)
    # The answers of ``jobs.preflight.describe``, by question
    answers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # Files and folders of the user's own data sets, by their names
    data: Mapping[str, str] = field(default_factory=dict)

    def resolved(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of TrainSpec, with names and options replaced by ``Plugin``. Raises ConfigError with all problems."""
        left = {axis: value for axis, value in values.items() if not is_plugin_axis(axis)}
        if values.get("model") is not None:
            left["architecture"] = values["model"]
        problems = [
            f"train.{kind}.{option}: has no effect without your own {kind}; write {kind}: module:name"
            for kind in _KINDS
            if _name(values, kind) is None
            for option in _options(values, kind)
        ]
        for kind, name, options in _named(values):
            answer = self.answers[canonical_json({kind: [name, options]})]
            problems += answer.get("problems", [])
            if "problems" not in answer:
                plugin = left[kind] = Plugin(**answer)
                if kind == "data":
                    left["dataset"] = plugin.label
        refuse(problems)
        return left


def find_plugins(entries: Sequence[str], points: Iterable[Mapping[str, Any]]) -> Plugins:
    """Read the files of plug-ins and describe, in a separate process, those that the models of a grid use.

    ``entries`` are packages and folders, as configured; ``points`` are the values of each model.
    Raises ConfigError with all problems of the entries.
    """
    contents = read_plugins(entries)
    asked = {canonical_json({named[0]: named[1:]}): named for point in points for named in _named(point)}
    # Describing a data set reads all its images the first time.
    limit = {"limit_s": None} if any(kind == "data" for kind, *_ in asked.values()) else {}
    answers = ask("jobs.preflight.describe", contents, list(asked.values()), **limit) if asked else []
    paths: dict[str, str] = {}
    for (kind, name, _), answer in zip(asked.values(), answers, strict=True):
        library, _, path = name.partition(":")
        if kind == "data" and library in DATA_FILES and "problems" not in answer:
            label = Plugin(**answer).label
            if paths.setdefault(label, path) != path:
                raise ConfigError(f"two data sets are called {label}: {paths[label]} and {path}; rename one")
    return Plugins(contents=contents, answers=dict(zip(asked, answers, strict=True)), data=paths)


def _named(values: Mapping[str, Any]) -> Iterator[tuple[PluginKind, str, dict[str, Any]]]:
    """Kind, name and options of the plug-ins that some values name."""
    for kind in _KINDS:
        if (name := _name(values, kind)) is not None:
            yield kind, name, _options(values, kind)


def _name(values: Mapping[str, Any], kind: PluginKind) -> str | None:
    name = values.get(kind)
    if kind == "model" and member_keys(values):
        return None
    if kind in _NAMED_BY:
        name = values.get(_NAMED_BY[kind]) if name is None else name
        if not isinstance(name, str) or ":" not in name:
            return None
        library, _, path = name.partition(":")
        return f"{library}:{Path(path).expanduser().absolute()}" if library in DATA_FILES else name
    return None if name is None else str(name)


def _options(values: Mapping[str, Any], kind: PluginKind) -> dict[str, Any]:
    prefix = f"{kind}."
    return {axis.removeprefix(prefix): value for axis, value in values.items() if axis.startswith(prefix)}
