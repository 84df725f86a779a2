"""The order of units: training before its certification, aggregation after everything else."""

from collections.abc import Collection

from jobs.specs.units import Unit
from pipeline.plan import Plan


class Schedule:
    """Selects the next unit of a plan while units run, succeed and fail."""

    def __init__(self, plan: Plan) -> None:
        self._waiting: list[Unit] = list(plan.units)
        self._untrained = {unit.train.key for unit in plan.train}
        self._any_failed = False

    def next_ready(self, running: Collection[Unit]) -> Unit | None:
        """Take the first unit whose dependencies are done; None if there is none at present."""
        for position, unit in enumerate(self._waiting):
            if unit.train is None:
                is_ready = len(self._waiting) == 1 and not running and not self._any_failed
            else:
                is_ready = unit.stage == "train" or unit.train.key not in self._untrained
            if is_ready:
                return self._waiting.pop(position)
        return None

    def finish(self, unit: Unit, *, succeeded: bool) -> None:
        """Record how a unit ended."""
        self._any_failed |= not succeeded
        if succeeded and unit.stage == "train" and unit.train is not None:
            self._untrained.discard(unit.train.key)

    @property
    def left(self) -> tuple[Unit, ...]:
        """Units that were not started; at the end, those skipped because a dependency failed."""
        return tuple(self._waiting)
