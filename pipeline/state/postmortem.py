"""What became of jobs that ended without a record of it, read from their logs. Needs no accounting.

The supervisor of a job records failures itself. Where it was killed too (memory of the whole job, a lost node, a
time limit without warning) or never started (setup), the log still says which unit was running, where, and often
why it ended.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.files.failures import Failure, FailureClass, Place, record_death
from jobs.files.store import Store
from jobs.specs.runs import Manifest
from jobs.specs.units import unit_named
from pipeline.state import joblog
from pipeline.state.ledger import arrays_of, read_tasks, slurm_logs

_REASONS: tuple[tuple[str, FailureClass | None], ...] = (
    (r"exceeded memory limit|oom.kill|Out Of Memory", "host_oom"),
    (r"DUE TO TIME LIMIT", "timeout"),
    (r"DUE TO PREEMPTION", "preempted"),
    (r"DUE TO NODE FAILURE|NODE_FAIL", "node_fail"),
    (r"srun: error: .*tasks? [1-9][\d,-]*: Exited with exit code", "unknown"),  # srun then ends the first one
    (r"CANCELLED AT", None),  # by somebody: nothing has failed
)


@dataclass(frozen=True, kw_only=True)
class Death:
    """A unit whose job is gone.

    Attributes:
        unit: Its name.
        failure_class: Why, as far as the log tells.
        message: The same in words.
        place: Where.
        log_path: The log that tells.
        num_before: Failures of the unit that were written down before.
        may_live: Whether its job has given a sign of life just now, and nothing says that it ended: SLURM may have
            lost its records.
    """

    unit: str
    failure_class: FailureClass
    message: str
    place: Place
    log_path: Path
    num_before: int = 0
    may_live: bool = False

    def as_failure(self) -> Failure:
        """As it would be written down."""
        return Failure(
            unit=self.unit,
            failure_class=self.failure_class,
            message=self.message,
            traceback="",
            host=self.place.host,
            gpus=self.place.gpus,
            log_path=str(self.log_path),
            attempt=self.num_before + 1,
            time=self.log_path.stat().st_mtime,
            job=self.place.job,
        )


def find_deaths(
    manifest: Manifest,
    store: Store,
    *,
    is_pending: Callable[[str], bool],
    recorded: Mapping[str, Failure],
) -> list[Death]:
    """Deaths that nobody has written down; opens the log of the last job of each such unit only.

    Args:
        manifest: The grid.
        store: Its results.
        is_pending: Whether the unit of a name is neither done nor in progress.
        recorded: The last failure of units that have one.
    """
    deaths, seen = [], set[str]()
    for name in arrays_of(store, manifest.grid):  # the latest first
        tasks, logs = read_tasks(store, name) or [], None
        for index, units in enumerate(tasks):
            new = [unit for unit in units if unit not in seen and is_pending(unit)]
            if not new:
                continue
            seen.update(new)
            logs = slurm_logs(store, name) if logs is None else logs
            if index not in logs:
                continue  # it never began: cancelled in the queue, or lost with it
            job, log_path = logs[index]
            for death in _deaths(job, log_path, new):
                last = recorded.get(death.unit)
                if death.unit in new and (last is None or last.job != job):
                    deaths.append(replace(death, num_before=0 if last is None else last.attempt))
    return deaths


def submission_times(store: Store, grid: str) -> dict[str, float]:
    """When each unit was last submitted to SLURM for a grid, in seconds since the epoch."""
    times: dict[str, float] = {}
    for name in arrays_of(store, grid):  # the latest first
        path = store.tasks_path(name.grid, name.launch, name.array)
        for units in read_tasks(store, name) or []:
            for unit in units:
                times.setdefault(unit, path.stat().st_mtime)
    return times


def record_deaths(deaths: Iterable[Death], manifest: Manifest, store: Store) -> list[Failure]:
    """Write deaths down as failures."""
    return [
        record_death(
            store,
            unit_named(death.unit, manifest),
            death.failure_class,
            death.message,
            death.log_path,
            place=death.place,
        )
        for death in deaths
    ]


def _deaths(job: str, log_path: Path, units: Iterable[str]) -> list[Death]:
    """Of the units that were running when a job ended; of all its units, where it ended before the first began."""
    log = joblog.read_job_log(log_path, job)
    if log.host is None or log.num_units:
        return [death for lost in log.lost if (death := _death(log_path, lost)) is not None]
    said = log.last_lines or "the log says nothing more"
    before = f"the job ended before its first unit began; check cluster.setup, cluster.python and the node:\n{said}"
    failure_class, message = _reason(log.text) or ("setup", before)
    if failure_class is None:
        return []
    if failure_class == "unknown":
        failure_class, message = "setup", before
    place = Place(host=log.host, gpus="", job=job)
    return [
        Death(unit=unit, failure_class=failure_class, message=message, place=place, log_path=log_path) for unit in units
    ]


def _death(log_path: Path, lost: joblog.LostUnit) -> Death | None:
    reason = _reason(lost.after)
    if reason is None and lost.was_interrupted:
        return None  # it was asked to stop, and saved its work
    failure_class, message = reason or ("unknown", "its job ended without an error message; the log may tell more")
    if failure_class is None:
        return None
    if reason:
        message = joblog.said_by_another(log_path, lost.unit) or message
    return Death(
        unit=lost.unit,
        failure_class=failure_class,
        message=message,
        place=lost.where,
        log_path=log_path,
        may_live=reason is None and joblog.is_beating(log_path),
    )


def _reason(text: str) -> tuple[FailureClass | None, str] | None:
    """Why a job ended, as SLURM wrote into its log: class (None: nothing has failed) and line."""
    for pattern, failure_class in _REASONS:
        match = re.search(f"^.*(?:{pattern}).*$", text, re.MULTILINE | re.IGNORECASE)
        if match:
            return failure_class, match[0].strip()
    return None
