"""Counts, lists and paragraphs in the text that people read."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable

_MAX_COLUMNS = 100  # longer lines are hard to read


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """A number >= 0 with its noun, whose plural may have more than an s: "1 model", "2 models", "15,000 images"."""
    return f"{number:,} {singular if number == 1 else plural or f'{singular}s'}"


def some(names: Iterable[str], most: int = 3) -> str:
    """The first of some names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return f"{', '.join(listed[:most])}{more}"


def columns() -> int:
    """Width of the text printed: that of the terminal (or of COLUMNS), at most 100; 80 if unknown."""
    return min(shutil.get_terminal_size((80, 24)).columns, _MAX_COLUMNS)


def shortened(path: str, width: int) -> str:
    """A path of at most ``width`` characters: the beginning of a longer one is replaced by three dots."""
    return path if len(path) <= width else f"...{path[len(path) - width + 3 :]}"


def wrapped(text: str, indent: str = "") -> str:
    """A paragraph cut into lines of at most ``columns()`` characters; later lines begin with ``indent``.

    Words are never cut, so that a path or a command can be copied: a longer one has a line of its own.
    """
    return textwrap.fill(text, columns(), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
