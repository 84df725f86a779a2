"""Counts, lists and paragraphs in the text that people read."""

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable
from itertools import chain
from typing import TextIO

_COMMAND = re.compile(r"(?<!\S)python -m .*")


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
    return min(shutil.get_terminal_size((80, 24)).columns, 100)  # longer lines are hard to read


def say(text: str, to: TextIO | None = None) -> None:
    """Print text for people, on standard output unless another stream is given; see ``fitted``."""
    print(fitted(text, to or sys.stdout), file=to, flush=True)


def fitted(text: str, to: TextIO) -> str:
    """Text with no line wider than the terminal that it goes to, or than COLUMNS says; for a log, lines stay whole.

    What is cut off a line is indented more than the line. A command ends its line; broken up, it can still be copied.
    """
    if "COLUMNS" not in os.environ and not to.isatty():
        return text
    return "\n".join(chain.from_iterable(map(_parts, text.split("\n"))))


def _parts(line: str) -> list[str]:
    indent, command = " " * (len(line) - len(line.lstrip()) + 2), _COMMAND.search(line)
    if command is None or len(line) <= columns():
        return [wrapped(line, indent)]
    parts = textwrap.wrap(command[0], columns() - len(indent) - 2, break_long_words=False, break_on_hyphens=False)
    before = wrapped(line[: command.start()].rstrip(), indent)
    return [before, *(f"{indent}{part} \\" for part in parts[:-1]), indent + parts[-1]]


def shortened(path: str, width: int) -> str:
    """A path of at most ``width`` characters: the beginning of a longer one is replaced by three dots."""
    return path if len(path) <= width else f"...{path[len(path) - width + 3 :]}"


def wrapped(text: str, indent: str = "") -> str:
    """A paragraph cut into lines of at most ``columns()`` characters; later lines begin with ``indent``.

    Words are never cut, so that a path or a command can be copied: a longer one has a line of its own.
    """
    return textwrap.fill(text, columns(), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
