"""Counts and paragraphs in the text that commands print."""

from __future__ import annotations

import shutil
import textwrap

_MAX_COLUMNS = 100  # longer lines are hard to read


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """A number >= 0 with its noun, whose plural may have more than an s: "1 model", "2 models", "15,000 images"."""
    return f"{number:,} {singular if number == 1 else plural or f'{singular}s'}"


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
