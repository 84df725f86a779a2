"""The user's mapping from patterns of paths to record columns, for what the paths of logs do not say."""

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import yaml

from jobs.errors import ConfigError, refuse
from jobs.files.imported import IMPORTED, PREDICTIONS
from jobs.validation import unknown_choice

_NOT_OF_A_LOG = {
    *("index", "label", "prediction", "base_prediction", "radius", "correct", "elapsed_s", "p_lower", "stop"),
    *("train_key", "certify_key", "counts0", "counts", "count_top", "n_used", "source"),
}
_FIELDS = (*PREDICTIONS.schema, *IMPORTED.schema)
_TYPES = {field.name: field.type for field in _FIELDS if field.name not in _NOT_OF_A_LOG}


class LogMapping:
    """Patterns, and the columns of the logs that they match.

    In a pattern ``*`` stands for anything within a name, ``**`` also for several folders, and ``{column}`` for a
    value of that column: ``"runs/*/noise_{sigma_cert}.tsv"``. If several patterns match, the later one wins.
    """

    def __init__(self, patterns: Mapping[str, Mapping[str, Any]]) -> None:
        problems: list[str] = []
        self._rules = [
            (pattern, _compiled(pattern, problems), _values(pattern, columns, problems))
            for pattern, columns in patterns.items()
        ]
        refuse(problems)
        self._unused = set(patterns)

    def fields_of(self, path: PurePosixPath) -> dict[str, Any]:
        """The columns of one log."""
        fields: dict[str, Any] = {}
        for pattern, compiled, columns in self._rules:
            if match := compiled.fullmatch(str(path)):
                self._unused.discard(pattern)
                texts = match.groupdict()
                fields |= columns | {name: pa.scalar(texts[name]).cast(_TYPES[name]).as_py() for name in texts}
        return fields

    def check_used(self) -> None:
        """Raise ConfigError if a pattern matched no log, which must be a mistake."""
        if self._unused:
            raise ConfigError([f"mapping: {pattern!r} matches no log" for pattern in sorted(self._unused)])


def read_mapping(path: str | None) -> LogMapping:
    """The mapping in a file; an empty one for None. Raises ConfigError with all problems."""
    if path is None:
        return LogMapping({})
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise ConfigError([f"mapping: cannot read {path}: {reason}"]) from error
    if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
        raise ConfigError([f'mapping: {path}: write lines such as "runs/*/noise_*": {{method: mine, split: test}}'])
    return LogMapping({str(pattern): columns for pattern, columns in content.items()})


def _compiled(pattern: str, problems: list[str]) -> re.Pattern[str]:
    text = ""
    for part in re.split(r"(\*\*|\*|\{\w+\})", pattern):
        name = part[1:-1]
        if part in ("*", "**"):
            text += ".*" if part == "**" else "[^/]*"
        elif not part.startswith("{"):
            text += re.escape(part)
        elif name not in _TYPES:
            problems.append(f"mapping: {pattern!r}: {unknown_choice('column', name, sorted(_TYPES))}")
        elif f"(?P<{name}>" in text:
            text += f"(?P={name})"
        else:
            text += f"(?P<{name}>{_CAPTURES.get(str(_TYPES[name]), '[^/]+?')})"
    return re.compile(text)


_CAPTURES = {"double": r"[0-9]+(?:\.[0-9]+)?", "int32": "[0-9]{1,9}", "int64": "[0-9]{1,18}"}


def _values(pattern: str, columns: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in columns.items():
        if name not in _TYPES:
            problems.append(f"mapping: {pattern!r}: {unknown_choice('column', name, sorted(_TYPES))}")
            continue
        with contextlib.suppress(pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            values[name] = pa.scalar(value, _TYPES[name]).as_py()
        if values.get(name) is None or isinstance(value, bool):
            problems.append(f"mapping: {pattern!r}: {name}: {value!r} is not of type {_TYPES[name]}")
    return values
