"""What one task of a SLURM array does.

Supervises: each unit runs in a process of its own, so that whatever kills it is written down with
node, GPU and attempt, and the units beside it go on.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path

from jobs.files.failures import Place, record_death
from jobs.files.store import Store
from jobs.processes import unit_process, worker
from jobs.processes.unit_process import UnitProcess
from jobs.rank import is_first_task
from jobs.specs.units import ShardUnit, Unit
from pipeline.slurm.submit import run_checkpointable
from pipeline.state.files import observe
from pipeline.state.ledger import Launch, locate, read_launch, units_of_task

_POLL_S = 1.0
_EXIT_FAILED = 1
# When the process of one of several tasks dies without a word, another has so long to write that down.
_OTHER_TASK_S = 10.0


@dataclass(kw_only=True)
class ArrayTask:
    """The units of one array task; picklable until it runs.

    Where several tasks of SLURM do one unit together, each has its own; the first one decides how the
    job ends.
    """

    store: Store
    grid: str
    units: list[Unit]
    launch: Launch
    time_limit_min: int
    _under_way: list[UnitProcess] = field(default_factory=list, init=False)
    _progress_at_start: dict[str, object] = field(default_factory=dict, init=False)
    _is_interrupted: bool = field(default=False, init=False)

    def __call__(self) -> None:
        """Run what is not done yet, so many units at a time. Exits with 1 where nothing of it could be done."""
        unit_process.start_fork_server(unit_process.modules_for(self.units[0].stage, len(self.units)))
        waiting, num_done = deque(self.units), 0
        try:
            while waiting or self._under_way:
                while waiting and len(self._under_way) < self.launch.runs_per_gpu and not self._is_interrupted:
                    num_done += self._begin(waiting.popleft())
                # Short waits, so that a signal is acted on at once.
                ended = wait([item.sentinel for item in self._under_way], timeout=_POLL_S) if self._under_way else []
                if self._is_interrupted:
                    self._leave()
                num_done += sum([self._finish(item) for item in [*self._under_way] if item.sentinel in ended])
        finally:
            for item in self._under_way:
                item.lifeline.close()
        if not num_done:
            if not is_first_task():
                time.sleep(_OTHER_TASK_S)
            sys.exit(_EXIT_FAILED)

    def interrupt(self) -> bool:
        """Have the units under way save and stop; False if none of them got anywhere within the time limit."""
        stopped = self._stop()
        if not stopped or not all(self._is_in_vain(item.unit) for item in stopped):
            return True
        for item in stopped:
            option = f"cluster.{item.unit.stage}.time_min"
            message = f"no progress within the time limit of {self.time_limit_min} min; raise {option}"
            record_death(self.store, item.unit, "timeout", message, item.log_path)
        return False

    def _begin(self, unit: Unit) -> bool:
        """Start a unit if it can run; whether it is done already."""
        if is_done(unit, self.store):
            return True
        reason = unmet_need(unit, self.store, self.launch)
        if reason:
            logging.warning("held back %s: %s", unit.name, reason)
            return False
        place = Place.here()
        logging.info("begin %s on %s gpus [%s]", unit.name, place.host, place.gpus)
        log_path = self.store.log_path(self.grid, unit.name)
        self._progress_at_start[unit.name] = progress_of(unit, self.store)
        self._under_way.append(unit_process.start(unit, self.store, self.launch.resources, log_path))
        return False

    def _finish(self, item: UnitProcess) -> bool:
        """Whether a unit whose process has ended is done now."""
        item.process.join()
        unit = item.unit
        if item.was_interrupted:  # by a signal to all processes of the job
            self._stop()
            self._leave()
        self._under_way.remove(item)
        failure = item.ended(self.store)
        if failure is not None and not is_done(unit, self.store):
            logging.error("failed %s: %s", unit.name, failure.message)
            return False
        logging.info("end %s", unit.name)
        return True

    def _stop(self) -> list[UnitProcess]:
        """Have the units under way save and stop, and start no more; those that were under way."""
        self._is_interrupted = True
        stopped = [*self._under_way]
        unit_process.interrupt_all(stopped, self.launch.grace_s)
        for item in stopped:
            logging.warning("interrupted %s", item.unit.name)
        return stopped

    def _leave(self) -> None:
        """End this task, its units interrupted."""
        sys.exit(_EXIT_FAILED if is_first_task() else 0)  # what becomes of the job is the first one's to say

    def _is_in_vain(self, unit: Unit) -> bool:
        is_first_start = os.environ.get("SLURM_RESTART_COUNT", "0") == "0"
        ran_s = time.monotonic() - _STARTED
        used_up = ran_s >= self.time_limit_min * 60 - self.launch.grace_s - 60
        return used_up and not is_first_start and progress_of(unit, self.store) == self._progress_at_start[unit.name]


_STARTED = time.monotonic()


def is_done(unit: Unit, store: Store) -> bool:
    """Whether a unit's result is there; an aggregation is always to be done when it is called for."""
    if isinstance(unit, ShardUnit):
        return not store.unfinished(unit.run.place, unit.indices)
    return unit.train is not None and store.is_trained(unit.train.key)


def unmet_need(unit: Unit, store: Store, launch: Launch) -> str | None:
    """What is not there yet that a unit needs; None if it can run."""
    if unit.train is None:
        return None if observe(launch.manifest, store).is_complete(launch.manifest) else "the grid is not complete"
    if unit.stage != "train" and not store.is_trained(unit.train.key):
        return f"there is no checkpoint of {unit.train.key}"
    return None


def progress_of(unit: Unit, store: Store) -> object:
    """Something that changes when the unit saves what it has."""
    if isinstance(unit, ShardUnit):
        path = store.partial_path(unit.run.place, unit.indices)
        return path.stat().st_mtime_ns if path.exists() else None
    return None if unit.train is None else store.saved_epochs(unit.train.key)


def draw_envelope(grid: str, store: Store) -> int:
    """Draw the envelope of a grid just aggregated, by the command that anyone would use; its exit code."""
    log_path = store.log_path(grid, "envelope")
    with log_path.open("ab") as log:
        command = [sys.executable, "-m", "analysis.envelope", f"grid={grid}", f"results={store.root}"]
        done = subprocess.run(command, stdout=log, stderr=log, check=False)
    logging.info("envelope: exit code %d, log: %s", done.returncode, log_path)
    return done.returncode


def main(folder: Path, index: int) -> None:
    """Run task ``index`` of the array that was submitted from a folder."""
    worker.log_to(sys.stderr)
    logging.getLogger("submitit").propagate = False  # it has a handler of its own
    store, name = locate(folder)
    launch = read_launch(folder.parent)
    limit = launch.time_limits_min[name.stage]
    units = units_of_task(store, name, index, launch.manifest)
    task = ArrayTask(store=store, grid=name.grid, units=units, launch=launch, time_limit_min=limit)
    run_checkpointable(task, time_limit_min=limit)
    if name.stage == "aggregate":
        sys.exit(draw_envelope(name.grid, store))
