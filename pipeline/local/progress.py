"""Progress of a launch: a bar on a terminal, otherwise a line every few seconds."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from types import TracebackType

from tqdm import tqdm

from jobs.specs.units import STAGES, Stage, Unit
from pipeline.cost import unit_cost

_LINE_EVERY_S = 10.0


class Progress:
    """Counts finished units, weighted by their cost, and shows them on standard error."""

    def __init__(self, units: tuple[Unit, ...]) -> None:
        self._total: Counter[Stage] = Counter(unit.stage for unit in units)
        self._done: Counter[Stage] = Counter()
        self._num_failed = 0
        self._cost = 0.0
        self._total_cost = sum(map(unit_cost, units))
        self._began = self._said = time.monotonic()
        self._bar = tqdm(
            total=1.0,
            disable=not _has_terminal(),
            bar_format="{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
            dynamic_ncols=True,
            leave=False,
        )
        self._bar.set_postfix_str(self._counts())

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def finish(self, unit: Unit, *, succeeded: bool) -> None:
        """Count a unit that has ended."""
        self._done[unit.stage] += succeeded
        self._num_failed += not succeeded
        cost = unit_cost(unit) / self._total_cost if self._total_cost else 0.0
        self._cost += cost
        self._bar.set_postfix_str(self._counts(), refresh=False)
        self._bar.update(min(cost, 1.0 - self._bar.n))
        self.tick()

    def tick(self) -> None:
        """Update the clock while no unit ends: on the bar, or with a line every few seconds."""
        self._bar.refresh()
        if self._bar.disable and time.monotonic() - self._said >= _LINE_EVERY_S:
            self._said = time.monotonic()
            self.say(f"{self._cost:4.0%}  {self._counts()}, {self._time_left()} left")

    def say(self, line: str) -> None:
        """Print a line without breaking the bar."""
        if self._bar.disable:
            print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
        else:
            self._bar.write(line, file=sys.stderr)

    def _counts(self) -> str:
        parts = [f"{stage} {self._done[stage]}/{self._total[stage]}" for stage in STAGES if self._total[stage]]
        return ", ".join([*parts, *([f"failed {self._num_failed}"] if self._num_failed else [])])

    def _time_left(self) -> str:
        elapsed = time.monotonic() - self._began
        return tqdm.format_interval(elapsed * (1 - self._cost) / self._cost) if self._cost else "?"


def _has_terminal() -> bool:
    """Whether standard error is a terminal that has a size (some recorders' have none)."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).lines > 0
    except (OSError, ValueError):
        return False
