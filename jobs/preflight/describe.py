"""The versions of plug-ins, and their options with all defaults.

Run by the launch, which imports no plug-in itself: they import torch.
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any

import pydantic

from jobs.datasets._own import described
from jobs.errors import ConfigError, refuse
from jobs.plugins import DATA_FILES, LIBRARIES, Plugin, isolated, loading
from jobs.specs.keys import canonical_json
from jobs.validation import STRICT, build, unknown_choice


def main(folder: Path) -> None:
    """Answer each [kind, name, options] with {name, version, options}, or with {problems}."""
    isolated.answer(folder, lambda requests: [_answer(*request) for request in requests])


def _answer(kind: str, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    try:
        with loading.errors_of(name):
            plugin = {"model": _model, "denoiser": _denoiser, "data": _data}.get(kind, _part)(name, options)
        canonical_json(plugin.options)
    except ConfigError as error:
        return {"problems": [f"{kind}: {problem}" for problem in error.problems]}
    except (TypeError, ValueError) as error:
        wanted = "its options are part of a key, and must be numbers, texts or lists"
        return {"problems": [f"{kind}: {plugin.name}: {wanted} ({error})"]}
    return {"name": plugin.name, "version": plugin.version, "options": plugin.options}


def _part(name: str, options: Mapping[str, Any]) -> Plugin:
    """An objective or a perturbation: a frozen dataclass that can be called."""
    loaded = loading.load(name)
    if not (inspect.isclass(loaded) and is_dataclass(loaded) and "__call__" in dir(loaded)):
        place = loading.place_of(loaded) if inspect.isclass(loaded) else name
        raise ConfigError(f"{place} must be a frozen dataclass with a method __call__")
    if not loaded.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise ConfigError(f"{loading.place_of(loaded)} must be frozen: write @dataclass(frozen=True, kw_only=True)")
    checked = pydantic.dataclasses.dataclass(loaded, config=STRICT, frozen=True)
    made: Any = build(checked, options, where=name)
    return Plugin(name=name, version=loading.version_of(loaded), options=asdict(made))


def _model(name: str, options: Mapping[str, Any]) -> Plugin:
    """A function of the description of a dataset and of options; or a model of a library."""
    library, _, model = name.partition(":")
    if library in LIBRARIES:
        known = loading.library(name).list_models()
        if model not in known:
            raise ConfigError(unknown_choice("model", model, [], also_near=known).partition(";")[0])
        return Plugin(name=name, options=dict(options))
    loaded = loading.load(name)
    if not callable(loaded):
        raise ConfigError(f"{name}: must be a function build(info, **options) that returns a torch.nn.Module")
    refuse(_signature_problems(loaded, options))
    parameters = list(inspect.signature(loaded).parameters.values())[1:]
    defaults = {one.name: one.default for one in parameters if one.default is not one.empty}
    return Plugin(name=name, version=loading.version_of(loaded), options={**defaults, **options})


def _denoiser(name: str, options: Mapping[str, Any]) -> Plugin:
    """A function build(info, sigma, **options); sigma is that of the model."""
    plugin = _model(name, {**options, "sigma": 1.0})
    return replace(plugin, options={key: value for key, value in plugin.options.items() if key != "sigma"})


def _data(name: str, options: Mapping[str, Any]) -> Plugin:
    """A data set: a file, a folder, or a function of the split that returns its images."""
    version = 1 if name.partition(":")[0] in DATA_FILES else loading.version_of(loading.load(name))
    return described(name, version, options)


def _signature_problems(function: Any, options: Mapping[str, Any]) -> Iterator[str]:
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters:
        yield f"{loading.place_of(function)} must take the description of the data set: build(info, **options)"
    known = [one.name for one in parameters[1:] if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
    takes_any = any(one.kind == one.VAR_KEYWORD for one in parameters)
    for option in options if not takes_any else ():
        if option not in known:
            yield f"{loading.place_of(function)} {unknown_choice('option', option, known)}"
    for one in parameters[1:]:
        if one.name in known and one.default is one.empty and one.name not in options:
            yield f"{loading.place_of(function)} option {one.name} has no default; write model.{one.name}"
