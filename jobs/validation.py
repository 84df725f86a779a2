"""From plain mappings to validated frozen dataclasses, with errors a person can act on."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Self, TypeVar

import pydantic
from pydantic import AfterValidator, ConfigDict, model_validator

from jobs.errors import ConfigError
from jobs.wording import counted

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
"""For ``pydantic.dataclasses.dataclass``: no silent conversion, no unknown key, no nan."""

T = TypeVar("T")

_TYPE = re.compile(r"(bool|int|float|str|\w+-(bool|int|float|str)|[\w-]+\[.*\])$")
"""The parts of pydantic's locations that name one of several types of a value."""

_WISHES = {
    "dataclass_exact_type": "write keys with values",
    "dict_type": "write keys with values",
    "list_type": "write a list",
}


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
    """An instance of a dataclass made with ``STRICT``, from its fields' values; nested dataclasses are instances.

    Raises ConfigError with every problem, each naming key, value and what is valid. Messages begin with ``where``: what
    the mapping is, as the user knows it ("train", "cluster"); empty for a command's own options.
    """
    unnamed = [key for key in values if not isinstance(key, str)]  # YAML's keys may be numbers
    if unnamed:
        known = [field.name for field in fields(cls)]  # type: ignore[arg-type]  # a dataclass
        raise ConfigError([_at(where, unknown_choice("key", key, known)) for key in unnamed])
    try:
        return cls(**values)
    except pydantic.ValidationError as error:
        raise ConfigError(_described(cls, error, where)) from error


def collect(problems: list[str], cls: type[T], values: Mapping[str, Any], *, where: str) -> T | None:
    """``build``, with the problems added to a list instead of raised; None where there are any."""
    try:
        return build(cls, values, where=where)
    except ConfigError as error:
        problems += error.problems
        return None


def unknown_choice(what: str, value: object, valid: Sequence[str], also_near: Sequence[str] = ()) -> str:
    """A message for a name that is not valid; suggests the nearest one, also of ``also_near``, too many to list."""
    near = difflib.get_close_matches(str(value), [*valid, *also_near], n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown {what} {value!r}{hint}" + (f"; valid: {', '.join(valid)}" if valid else "")


def matching(pattern: str, meaning: str) -> AfterValidator:
    """For ``Annotated``: text or a number that matches a pattern as a whole; the error says what it must be."""

    def check(value: str | int) -> str | int:
        if re.fullmatch(pattern, str(value)) is None:
            raise ValueError(f"{value!r} is not {meaning}")
        return value

    return AfterValidator(check)


def _at(where: str, message: str) -> str:
    return f"{where}: {message}" if where else message


def _described(cls: type[Any], error: pydantic.ValidationError, where: str) -> list[str]:
    """One message per value: pydantic has one for every type that a value may have."""
    found: dict[str, tuple[str, list[str], str]] = {}
    for problem in error.errors():
        parts = [part for part in problem["loc"] if not _TYPE.match(str(part))]
        kind, value, message = problem["type"], problem["input"], problem["msg"]
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
        at, got = f"{where}{path}".removeprefix("."), ""
        if kind in ("unexpected_keyword_argument", "extra_forbidden"):
            message = "unknown key"
            if len(parts) == 1:
                at, message = where, unknown_choice("key", str(parts[0]), [field.name for field in fields(cls)])
        elif kind in ("missing", "missing_argument"):
            message = "a value is required"
        elif kind == "literal_error":
            message = f"{value!r} is not valid; valid: {problem['ctx']['expected']}"
        elif kind == "value_error":  # raised by our own validators, whose text is complete
            message = str(problem["ctx"]["error"])
        elif kind == "too_short":
            message, got = f"write at least {counted(problem['ctx']['min_length'], 'value')}", f", got {value!r}"
        else:
            message, got = _WISHES.get(kind, message[:1].lower() + message[1:]), f", got {value!r}"
        found.setdefault(path, (at, [], got))[1].append(message)
    return [
        _at(at, f"{' or '.join(messages)}{got}")
        for path, (at, messages, got) in found.items()
        if not any(other.startswith(f"{path}[") for other in found)  # an item says more than its list
    ]
