"""The order of units: training before its certification, aggregation after everything else."""

from collections.abc import Iterable

from jobs.specs.units import Unit
from pipeline.plan import Plan


class Schedule:
    """Selects the next unit of a plan while units run, succeed and fail."""

    def __init__(self, plan: Plan) -> None:
        self._waiting: list[Unit] = list(plan.units)
        self._pending_train = {unit.train.key for unit in plan.train}
        self._failed_train: set[str] = set()
        self._any_failed = False

    def next_ready(self, running: Iterable[Unit]) -> Unit | None:
        """Take the first unit whose dependencies are done; None if there is none at present."""
        is_last = not list(running) and not self._any_failed
        for position, unit in enumerate(self._waiting):
            if self._is_ready(unit, is_last=is_last and len(self._waiting) == 1):
                return self._waiting.pop(position)
        return None

    def finish(self, unit: Unit, *, succeeded: bool) -> None:
        """Record how a unit ended."""
        self._any_failed |= not succeeded
        if unit.stage == "train" and unit.train is not None:
            self._pending_train.discard(unit.train.key)
            if not succeeded:
                self._failed_train.add(unit.train.key)

    @property
    def left(self) -> tuple[Unit, ...]:
        """Units that were not started; at the end, those skipped because a dependency failed."""
        return tuple(self._waiting)

    def _is_ready(self, unit: Unit, *, is_last: bool) -> bool:
        if unit.train is None:
            return is_last
        return unit.stage == "train" or unit.train.key not in self._pending_train | self._failed_train
