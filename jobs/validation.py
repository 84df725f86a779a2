"""From plain mappings to validated frozen dataclasses, with errors a person can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Self, TypeVar

import pydantic
from pydantic import ConfigDict, model_validator

from jobs.errors import ConfigError

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
"""For ``pydantic.dataclasses.dataclass``: no silent conversion, no unknown key, no nan."""

T = TypeVar("T")


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class Fitting:
    """A dataclass whose fields must fit together: making one raises ValueError with all problems."""

    def _problems(self) -> Iterator[str]:
        raise NotImplementedError

    @model_validator(mode="after")
    def _fields_fit(self) -> Self:
        if problems := list(self._problems()):
            raise ValueError("; ".join(problems))
        return self


def build(cls: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """An instance of a dataclass made with ``STRICT``, from a mapping.

    Args:
        cls: The dataclass.
        values: Field values; nested dataclasses as instances.
        where: What the mapping is, as the user knows it ("train", "cluster"), to begin messages; empty for a command's
            own options.

    Raises:
        ConfigError: With every problem, each naming key, value and what is valid.
    """
    unnamed = [key for key in values if not isinstance(key, str)]  # YAML's keys may be numbers
    if unnamed:
        known = [field.name for field in fields(cls)]  # type: ignore[arg-type]  # a dataclass
        raise ConfigError([_at(where, unknown_choice("key", key, known)) for key in unnamed])
    try:
        return cls(**values)
    except pydantic.ValidationError as error:
        raise ConfigError([_describe(cls, problem, where) for problem in error.errors()]) from error


def collect(problems: list[str], cls: type[T], values: Mapping[str, Any], *, where: str) -> T | None:
    """``build``, with the problems added to a list instead of raised; None where there are any."""
    try:
        return build(cls, values, where=where)
    except ConfigError as error:
        problems += error.problems
        return None


def unknown_choice(what: str, value: object, valid: Sequence[str], also_near: Sequence[str] = ()) -> str:
    """A message for a name of a ``what`` that is not valid, with the nearest one suggested.

    Names of ``also_near`` are worth suggesting too, but too many to list.
    """
    near = difflib.get_close_matches(str(value), [*valid, *also_near], n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown {what} {value!r}{hint}; valid: {', '.join(valid)}"


def _at(where: str, message: str) -> str:
    return f"{where}: {message}" if where else message


def _describe(cls: type[Any], problem: Any, where: str) -> str:
    location = ".".join(filter(None, [where, *(str(part) for part in problem["loc"])]))
    kind, value, message = problem["type"], problem["input"], problem["msg"]
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        key = str(problem["loc"][-1])
        known = [field.name for field in fields(cls)] if len(problem["loc"]) == 1 else []
        return _at(where, unknown_choice("key", key, known)) if known else f"{location}: unknown key"
    if kind in ("missing", "missing_argument"):
        return f"{location}: a value is required"
    if kind in ("dataclass_exact_type", "dict_type"):
        return f"{location}: write keys with values, got {value!r}"
    if kind == "list_type":
        return f"{location}: write a list, got {value!r}"
    if kind == "literal_error":
        return f"{location}: {value!r} is not valid; valid: {problem['ctx']['expected']}"
    if kind == "value_error":  # raised by our own validators, whose text is complete
        return f"{location}: {problem['ctx']['error']}"
    return f"{location}: {message[0].lower()}{message[1:]}, got {value!r}"
