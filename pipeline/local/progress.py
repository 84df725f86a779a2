"""Progress of a launch: a bar on a terminal, otherwise a line every few seconds."""

import os
import sys
import time
from collections import Counter

from tqdm import tqdm

from jobs.files.store import Store
from jobs.specs.units import STAGES, Stage, Unit
from jobs.wording import fitted, say
from pipeline.request.cost import unit_cost
from pipeline.state.progress import progress_of

_LINE_EVERY_S = 10.0


class Progress:
    """Shows on standard error how much of the work is done, by cost, including what running units have saved."""

    def __init__(self, units: tuple[Unit, ...], store: Store) -> None:
        self._store = store
        self._total: Counter[Stage] = Counter(unit.stage for unit in units)
        self._done: Counter[Stage] = Counter()
        self._num_failed = 0
        self._finished = 0.0  # share of the total cost; likewise below
        self._saved: dict[Unit, float] = {}  # of running units
        self._earlier: dict[Unit, float] = {}  # what a unit had saved when this launch started it
        self._total_cost = sum(map(unit_cost, units))
        self._began = self._said = time.monotonic()
        self._bar = tqdm(
            total=1.0,
            disable=not _has_terminal(),
            bar_format="{percentage:3.0f}%|{bar}| {elapsed}{postfix}",
            dynamic_ncols=True,
            leave=False,
        )
        self._bar.set_postfix_str(self._counts())

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()

    def start(self, unit: Unit) -> None:
        """Record what a unit saved in an earlier launch, which takes no time now."""
        self._earlier[unit] = self._saved[unit] = self._share(unit)

    def finish(self, unit: Unit, *, succeeded: bool) -> None:
        """Count a unit that has ended."""
        self._done[unit.stage] += succeeded
        self._num_failed += not succeeded
        self._saved.pop(unit, None)
        self._finished += self._cost(unit)
        self._show()
        self.tick()

    def tick(self) -> None:
        """Update while no unit ends: the clock of a bar, and every 10 s what running units have saved."""
        self._bar.refresh()
        if time.monotonic() - self._said >= _LINE_EVERY_S:
            self._said = time.monotonic()
            self._saved = {unit: self._share(unit) for unit in self._saved}
            self._show()
            if self._bar.disable:
                self.say(f"{self._so_far:4.0%}  {self._counts()}")

    def say(self, line: str) -> None:
        """Print a line without breaking the bar."""
        if self._bar.disable:
            say(f"{time.strftime('%H:%M:%S')} {line}", sys.stderr)
        else:
            self._bar.write(fitted(line, sys.stderr), file=sys.stderr)

    @property
    def _so_far(self) -> float:
        return min(1.0, self._finished + sum(self._saved.values()))

    def _show(self) -> None:
        self._bar.n = self._so_far
        self._bar.set_postfix_str(self._counts())

    def _counts(self) -> str:
        parts = [f"{stage} {self._done[stage]}/{self._total[stage]}" for stage in STAGES if self._total[stage]]
        failed = [f"failed {self._num_failed}"] if self._num_failed else []
        gained, elapsed = self._so_far - sum(self._earlier.values()), time.monotonic() - self._began
        time_left = tqdm.format_interval(elapsed * (1 - self._so_far) / gained) if gained > 0 else "?"
        return ", ".join([*parts, *failed, f"{time_left} left"])

    def _cost(self, unit: Unit) -> float:
        return unit_cost(unit) / self._total_cost if self._total_cost else 0.0

    def _share(self, unit: Unit) -> float:
        """What a unit has saved, as a share of the total cost."""
        return self._cost(unit) * progress_of(unit, self._store) / max(1, unit.num_parts)


def _has_terminal() -> bool:
    """Whether standard error is a terminal with a size (those of some recorders have none)."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).lines > 0
    except (OSError, ValueError):
        return False
