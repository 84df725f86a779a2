"""Keys: a readable slug and eight hex digits of a hash over all resolved fields of a spec.

So neither a changed default nor a resource, path or shard layout can change the meaning of a key.
"""

import hashlib
import json
from dataclasses import fields
from typing import Annotated, Any

from pydantic import Field

KEY_FORMAT = 1
"""Part of every hash; raise it when a field changes its meaning."""

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(gt=0, lt=1)]
MAX_ALPHA = 0.5
"""Largest probability of an error that anyone means. Stored specs may have a larger one."""

MAX_LENGTH = 1000.0
"""Largest sigma and epsilon. No two images here are farther apart than 388, and below it all integers of
exact noise are exact in float32."""

Length = Annotated[float, Field(ge=0, le=MAX_LENGTH)]
PositiveLength = Annotated[float, Field(gt=0, le=MAX_LENGTH)]
AtLeastOne = Annotated[int, Field(ge=1, le=2**31 - 1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


def plain(spec: Any) -> dict[str, Any]:
    """The fields of a spec by name, not copied; ``asdict`` takes ten times as long."""
    return {field.name: getattr(spec, field.name) for field in fields(spec)}


def canonical_json(fields: dict[str, Any]) -> str:
    """The canonical text of a mapping: sorted keys, no blanks, shortest exact floats."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)


def differences(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """The fields that differ between two specs, with both values; empty if none differs."""
    return ", ".join(
        f"{key} is {found.get(key)!r}, expected {expected.get(key)!r}"
        for key in sorted({*found, *expected})
        if found.get(key) != expected.get(key)
    )


def digest(kind: str, fields: dict[str, Any]) -> str:
    """Eight hex digits of a hash of a kind of spec and all its fields."""
    text = canonical_json({"kind": kind, "format": KEY_FORMAT, "fields": fields})
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def decimal(value: float) -> str:
    """At least two decimals, more where the value has more: 0.50, 0.125, 1.00."""
    return f"{value:.2f}" if round(value, 2) == value else repr(value)
