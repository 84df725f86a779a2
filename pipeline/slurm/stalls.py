"""Which of the units that run on a node have got no further for too long."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from jobs.files.store import Store
from jobs.processes.unit_process import UnitProcess
from pipeline.state.progress import progress_of

_LOOK_EVERY_S = 10.0


@dataclass(kw_only=True)
class Stalls:
    """Watches the progress of units.

    Attributes:
        store: The results folder.
        limit_min: Minutes without progress after which a unit is stalled; None watches nothing.
    """

    store: Store
    limit_min: float | None
    _seen: dict[str, tuple[int, float]] = field(default_factory=dict)
    _next_look: float = 0.0

    def among(self, items: Sequence[UnitProcess]) -> list[UnitProcess]:
        """The stalled ones of some units that run now."""
        now = time.monotonic()
        if self.limit_min is None or now < self._next_look:
            return []
        self._next_look = now + min(_LOOK_EVERY_S, self.limit_min * 15)
        for item in items:
            progress = progress_of(item.unit, self.store)
            before = self._seen.get(item.unit.name)
            if before is None or before[0] != progress:
                self._seen[item.unit.name] = (progress, now)
        return [item for item in items if now - self._seen[item.unit.name][1] > self.limit_min * 60]
