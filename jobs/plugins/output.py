"""Standard output of which plug-ins may fill a limited number of lines."""

from __future__ import annotations

import io
from typing import TextIO

from jobs.plugins import loading


class LimitedOutput(io.StringIO):
    """Passes lines on to a stream, if there is one. From the limit on, a plug-in that prints gets an error."""

    def __init__(self, max_lines: int, during: str, target: TextIO | None = None) -> None:
        super().__init__()
        self._left, self._target = max_lines, target
        self._problem = f"prints more than {max_lines:,} lines in {during}; a grid of trainings would fill the disk"

    def write(self, text: str) -> int:
        self._left -= text.count("\n")
        if self._left < 0 and loading.place_here() is not None:
            raise RuntimeError(self._problem)
        return len(text) if self._target is None else self._target.write(text)

    def flush(self) -> None:
        if self._target is not None:
            self._target.flush()
