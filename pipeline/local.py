"""A bounded pool of processes on this machine: one process for each unit.

Processes come from a fork server that has imported torch once, so that starting one takes
milliseconds. Each holds a lifeline to the launch and ends when the launch does, however that ends.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from jobs import worker
from jobs.atomic import write_json
from jobs.failures import Failure, FailureClass, failures_of, record_death
from jobs.store import Store
from jobs.units import Resources, Unit
from pipeline.executor import Outcome
from pipeline.plan import Plan
from pipeline.progress import Progress
from pipeline.schedule import Schedule

_PRELOAD = ["jobs.warm", "configs.entry", "pipeline.grid", "pipeline.report"]
_EXIT_ORPHANED = 75
_POLL_S = 1.0


@dataclass(frozen=True)
class LocalExecutor:
    """Runs units in at most ``num_workers`` processes at a time."""

    num_workers: int

    def run(self, plan: Plan, *, grid: str, store: Store, resources: Resources) -> Outcome:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOAD)
        schedule, failures, running = Schedule(plan), list[Failure](), list[_Running]()
        with Progress(plan.units) as progress, _ended_with_us(running):
            while True:
                while len(running) < self.num_workers:
                    unit = schedule.next_ready(running=[item.unit for item in running])
                    if unit is None:
                        break
                    running.append(_start(context, unit, store, resources, store.log_path(grid, unit.name)))
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


@dataclass(frozen=True, kw_only=True, eq=False)
class _Running:
    """A unit and the process it runs in."""

    unit: Unit
    process: multiprocessing.process.BaseProcess
    lifeline: Connection
    log_path: Path
    num_failures_before: int

    def ended(self, store: Store) -> Failure | None:
        """Reap the process; its failure, if it failed, written down in its stead if need be."""
        self.process.join()
        self.lifeline.close()
        if self.process.exitcode == 0:
            return None
        recorded = failures_of(store, self.unit)
        if len(recorded) > self.num_failures_before:
            return recorded[-1]
        failure_class, message = _death(self.process.exitcode or 0)
        return record_death(store, self.unit, failure_class, message, self.log_path)


def _start(
    context: multiprocessing.context.ForkServerContext, unit: Unit, store: Store, resources: Resources, log_path: Path
) -> _Running:
    ours, theirs = context.Pipe()
    process = context.Process(target=_run_unit, args=(unit, store, resources, log_path, theirs), name=unit.name)
    num_failures = len(failures_of(store, unit))
    process.start()
    theirs.close()
    return _Running(unit=unit, process=process, lifeline=ours, log_path=log_path, num_failures_before=num_failures)


def _run_unit(unit: Unit, store: Store, resources: Resources, log_path: Path, lifeline: Connection) -> None:
    """What a worker process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launch decides, and ends us with its lifeline
    threading.Thread(target=_die_with, args=(lifeline,), daemon=True).start()
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab", buffering=0) as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    worker.log_to(sys.stderr)
    try:
        worker.execute(unit, store, resources, log_path)
    except Exception:  # written down by the worker
        sys.exit(1)


def _die_with(lifeline: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv()
    os._exit(_EXIT_ORPHANED)


@contextlib.contextmanager
def _ended_with_us(running: list[_Running]):  # type: ignore[no-untyped-def]
    try:
        yield
    finally:
        for item in running:
            item.lifeline.close()
        for item in running:
            item.process.join()


def _wait_for_some(running: list[_Running]) -> list[_Running]:
    ready = wait([item.process.sentinel for item in running], timeout=_POLL_S)
    return [item for item in running if item.process.sentinel in ready]


def _write_activity(path: Path, running: list[_Running], waiting: tuple[Unit, ...]) -> None:
    write_json(
        path,
        {
            "pid": os.getpid(),
            "running": [item.unit.name for item in running],
            "queued": [unit.name for unit in waiting],
            "time": time.time(),
        },
    )


def _death(exit_code: int) -> tuple[FailureClass, str]:
    if exit_code >= 0:
        return "unknown", f"the process exited with code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    if name == "SIGKILL":
        return "unknown", "the process was killed (SIGKILL): out of memory, or by hand"
    return ("bug" if name in ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE") else "unknown"), (
        f"the process died of {name}"
    )
