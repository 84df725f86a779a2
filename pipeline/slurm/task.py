"""One task of a SLURM array: it runs each unit in a separate process and supervises it.

So if a unit's process is killed, the task records it with node, GPU and attempt, and the other units continue.
"""

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path

from jobs.files.failures import FailureClass, Place, failures_of, last_failure, record_death
from jobs.files.store import Store
from jobs.host import is_first_task
from jobs.processes import unit_process, worker
from jobs.processes.unit_process import UnitProcess
from jobs.specs.units import TrainUnit, Unit
from pipeline.retry import gave_up
from pipeline.slurm.signals import requeue, run_interruptible
from pipeline.state import joblog
from pipeline.state.files import observe, pending_units, read_history
from pipeline.state.ledger import Launch, locate, read_launch, read_task
from pipeline.state.progress import progress_of

_POLL_S, _LOOK_EVERY_S = 1.0, 10.0
_EXIT_FAILED, _EXIT_SKIPPED = 1, 3
_NEED_PATIENCE_S = 60.0
"""The attribute cache of a network file system may hide a file of another job for this time."""
_SIGNAL_RESOLUTION_S = 65.0
"""SLURM sends its warning up to 60 s earlier than requested."""
_MAX_IDLE_STARTS = 5
"""Consecutive starts without progress after which a job is not requeued."""
_OTHER_TASK_S = 10.0
"""If the process of one of several tasks dies silently, another task has this time to record it."""


@dataclass(kw_only=True)
class ArrayTask:
    """The units of one array task. If several SLURM tasks run one unit together, the first decides how the job ends."""

    store: Store
    grid: str  # the grid it was launched for
    units: list[Unit]  # in the order in which they start
    launch: Launch  # the settings of the launch
    time_limit_min: int  # of the job
    log_path: Path | None = None  # SLURM's log; shows how earlier starts of the job ended
    _in_progress: list[UnitProcess] = field(default_factory=list, init=False)
    _progress: dict[str, object] = field(default_factory=dict, init=False)
    _is_interrupted: bool = field(default=False, init=False)
    _num_failed: int = field(default=0, init=False)
    _seen: dict[str, tuple[int, float]] = field(default_factory=dict, init=False)
    _next_look: float = field(default=0.0, init=False)
    _began: float = field(default_factory=time.monotonic, init=False)

    def __call__(self) -> None:
        """Run what is not done yet, ``runs_per_gpu`` units at a time.

        Exits with 1 if units failed and none was done, and with 3 if all were skipped.
        """
        unit_process.start_fork_server(unit_process.modules_for(self.units[0].stage, len(self.units)))
        waiting, num_done = deque(self.units), 0
        try:
            while waiting or self._in_progress:
                while waiting and len(self._in_progress) < self.launch.runs_per_gpu and not self._is_interrupted:
                    num_done += self._begin(waiting.popleft())
                # Short waits, to react to a signal at once.
                sentinels = [item.sentinel for item in self._in_progress]
                ended = wait(sentinels, timeout=_POLL_S) if sentinels else []
                if self._is_interrupted:
                    self._leave()
                num_done += sum([self._finish(item) for item in [*self._in_progress] if item.sentinel in ended])
                if self.log_path is not None:
                    joblog.beat(self.log_path)
                if self.launch.stall_min is not None and (stalled := self._stalled(self.launch.stall_min)):
                    self._end_stalled(stalled)
        finally:
            for item in self._in_progress:
                item.kill()
        if not num_done:
            if not is_first_task():
                time.sleep(_OTHER_TASK_S)
            sys.exit(_EXIT_FAILED if self._num_failed else _EXIT_SKIPPED)

    def interrupt(self) -> bool:
        """Make the running units save and stop; returns whether another start of the job can make progress."""
        stopped = self._stop()
        idle = [item for item in stopped if progress_of(item.unit, self.store) == self._progress[item.unit.name]]
        if not stopped or len(idle) < len(stopped):
            return True
        joblog.start_without_progress()
        num_idle = 1 + (joblog.num_idle_starts(self.log_path) if self.log_path else 0)
        lasted_s = time.time() - float(os.environ.get(joblog.BEGAN_VARIABLE, _STARTED))
        early_s = self.launch.signal_delay_s + _SIGNAL_RESOLUTION_S
        is_first_start = os.environ.get("SLURM_RESTART_COUNT", "0") == "0"
        had_its_time = not is_first_start and lasted_s >= self.time_limit_min * 60 - early_s
        if not had_its_time and num_idle < _MAX_IDLE_STARTS:
            return True
        for item in stopped:
            option = f"cluster.{item.unit.stage}.time_min"
            message = f"no progress within the time limit of {self.time_limit_min} min; raise {option}"
            if not had_its_time:
                message = f"no progress: SLURM ended {num_idle} starts of the job early"
            failure_class: FailureClass = "timeout" if had_its_time else "preempted"
            record_death(self.store, item.unit, failure_class, message, item.log_path)
        return False

    def _stalled(self, limit_min: float) -> list[UnitProcess]:
        """The running units without progress for ``limit_min`` minutes; checks at most every 10 s."""
        now = time.monotonic()
        if now < self._next_look:
            return []
        self._next_look = now + min(_LOOK_EVERY_S, limit_min * 15)
        for item in self._in_progress:
            progress = progress_of(item.unit, self.store)
            if self._seen.get(item.unit.name, (None, now))[0] != progress:
                self._seen[item.unit.name] = (progress, now)
        return [item for item in self._in_progress if now - self._seen[item.unit.name][1] > limit_min * 60]

    def _end_stalled(self, items: Sequence[UnitProcess]) -> None:
        """End units that make no progress, and requeue the job unless that happened before."""
        for item in items:
            item.kill()
            message = f"no progress for {self.launch.stall_min:g} min (cluster.stall_min); its process was ended"
            record_death(self.store, item.unit, "stalled", message, item.log_path)
            joblog.unit_is("failed", item.unit.name, message)
        self._in_progress = [item for item in self._in_progress if item not in items]
        self._stop()
        last = [last_failure(self.store, item.unit) for item in items]
        if is_first_task() and not all(failure and gave_up(failure.counts, None) for failure in last):
            requeue()
        self._leave()

    def _begin(self, unit: Unit) -> bool:
        """Start a unit if it can run; returns whether it is already done."""
        if is_done(unit, self.store):
            return True
        if reason := self._unmet_need(unit):
            joblog.unit_is("skipped", unit.name, reason)
            return False
        joblog.unit_begins(unit.name, Place.here())
        log_path = self.store.log_path(self.grid, unit.name)
        self._progress[unit.name] = progress_of(unit, self.store)
        self._in_progress.append(unit_process.start(unit, self.store, self.launch.resources, log_path))
        return False

    def _finish(self, item: UnitProcess) -> bool:
        """Handle the end of a unit's process; returns whether the unit is done."""
        item.process.join()
        unit = item.unit
        if item.was_interrupted:  # by a signal to all processes of the job
            self._stop()
            self._leave()
        self._in_progress.remove(item)
        failure = item.ended(self.store)
        if failure is not None and not is_done(unit, self.store):
            joblog.unit_is("failed", unit.name, failure.message)
            self._num_failed += 1
            return False
        joblog.unit_is("end", unit.name)
        return True

    def _stop(self) -> list[UnitProcess]:
        """Make the running units save and stop, and start no more; returns those that were running."""
        self._is_interrupted = True
        stopped = [*self._in_progress]
        unit_process.interrupt_all(stopped, self.launch.grace_s)
        for item in stopped:
            joblog.unit_is("interrupted", item.unit.name)
        return stopped

    def _leave(self) -> None:
        """End this task after its units were interrupted."""
        sys.exit(_EXIT_FAILED if is_first_task() else 0)  # the first task decides how the job ends

    def _unmet_need(self, unit: Unit) -> str | None:
        """The missing dependency of a unit, after waiting for files that may be hidden; records a failure."""
        while (reason := unmet_need(unit, self.store, self.launch)) and not self._is_hopeless(unit):
            if time.monotonic() > self._began + _NEED_PATIENCE_S:
                reason = f"{reason} {_NEED_PATIENCE_S:.0f} s after this job began"
                if unit.stage != "aggregate":
                    record_death(self.store, unit, "unknown", reason, self.log_path or Path(os.devnull))
                    self._num_failed += 1
                return reason
            time.sleep(_POLL_S)
        return reason

    def _is_hopeless(self, unit: Unit) -> bool:
        """Whether a dependency of a unit has failed, by the recorded failures."""
        if unit.train is not None:
            return bool(failures_of(self.store, TrainUnit(train=unit.train)))
        manifest, observed = self.launch.manifest, observe(self.launch.manifest, self.store)
        return bool(read_history(manifest, observed, self.store, pending_units(manifest, observed)))


_STARTED = time.time()


def is_done(unit: Unit, store: Store) -> bool:
    """Whether a unit's result exists; an aggregation is always run when it is submitted."""
    if unit.run is not None:
        return not store.unfinished(unit.run.place, unit.indices)
    return unit.train is not None and store.is_trained(unit.train.key)


def unmet_need(unit: Unit, store: Store, launch: Launch) -> str | None:
    """The missing dependency of a unit; None if it can run."""
    if unit.train is None:
        return None if observe(launch.manifest, store).is_complete(launch.manifest) else "the grid is not complete"
    if unit.stage != "train":
        with contextlib.suppress(OSError):
            os.listdir(store.run_dir(unit.train.key))  # makes a network file system refresh its cache
        if not store.is_trained(unit.train.key):
            return f"no checkpoint of {unit.train.key}"
    return None


def draw_envelope(grid: str, store: Store) -> int:
    """Draw the envelope of an aggregated grid with the usual command; returns its exit code."""
    log_path = store.log_path(grid, "envelope")
    with log_path.open("ab") as log:
        command = [sys.executable, "-m", "analysis.envelope", f"grid={grid}", f"results={store.root}"]
        done = subprocess.run(command, stdout=log, stderr=log, check=False)
    logging.info("envelope: exit code %d, log: %s", done.returncode, log_path)
    return done.returncode


def main(folder: Path, index: int) -> None:
    """Run task ``index`` of the array that was submitted from this folder."""
    worker.log_to(sys.stderr)
    store, name = locate(folder)
    launch = read_launch(folder.parent)
    units, limit_min = read_task(folder, index, launch)
    task = ArrayTask(
        store=store,
        grid=name.grid,
        units=units,
        launch=launch,
        time_limit_min=limit_min,
        log_path=folder / f"{os.environ['SLURM_ARRAY_JOB_ID']}_{index}_0_log.out",
    )
    run_interruptible(task, task.interrupt)
    if name.stage == "aggregate":
        sys.exit(draw_envelope(name.grid, store))
