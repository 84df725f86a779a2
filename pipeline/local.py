"""A bounded pool of processes on this machine: one process for each unit."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

from jobs import process
from jobs.atomic import write_json
from jobs.failures import Failure
from jobs.process import UnitProcess
from jobs.store import Store
from jobs.units import Resources, Unit
from pipeline.executor import Outcome
from pipeline.plan import Plan
from pipeline.progress import Progress
from pipeline.schedule import Schedule

_PRELOAD = [process.WARM, "configs.entry", "pipeline.grid", "pipeline.report"]
_POLL_S = 1.0


@dataclass(frozen=True)
class LocalExecutor:
    """Runs units in at most ``num_workers`` processes at a time."""

    num_workers: int

    def run(self, plan: Plan, *, grid: str, store: Store, resources: Resources) -> Outcome:
        process.start_fork_server(_PRELOAD)
        schedule, failures, running = Schedule(plan), list[Failure](), list[UnitProcess]()
        with Progress(plan.units) as progress, _ended_with_us(running):
            while True:
                while len(running) < self.num_workers:
                    unit = schedule.next_ready(running=[item.unit for item in running])
                    if unit is None:
                        break
                    running.append(process.start(unit, store, resources, store.log_path(grid, unit.name)))
                if not running:
                    break
                _write_activity(store.activity_path(grid), running, schedule.left)
                while not (ended := _wait_for_some(running)):
                    progress.tick()
                for item in ended:
                    running.remove(item)
                    failure = item.ended(store)
                    if failure is not None:
                        failures.append(failure)
                        progress.say(f"failed {item.unit.name}: {failure.message.splitlines()[0]}")
                    schedule.finish(item.unit, succeeded=failure is None)
                    progress.finish(item.unit, succeeded=failure is None)
        store.activity_path(grid).unlink(missing_ok=True)
        return Outcome(failures=tuple(failures), held_back=schedule.left)


@contextlib.contextmanager
def _ended_with_us(running: list[UnitProcess]) -> Iterator[None]:
    try:
        yield
    finally:
        for item in running:
            item.lifeline.close()
        for item in running:
            item.process.join()


def _wait_for_some(running: list[UnitProcess]) -> list[UnitProcess]:
    ready = wait([item.sentinel for item in running], timeout=_POLL_S)
    return [item for item in running if item.sentinel in ready]


def _write_activity(path: Path, running: list[UnitProcess], waiting: tuple[Unit, ...]) -> None:
    write_json(
        path,
        {
            "pid": os.getpid(),
            "running": [item.unit.name for item in running],
            "queued": [unit.name for unit in waiting],
            "time": time.time(),
        },
    )
