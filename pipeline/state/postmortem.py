"""Why jobs ended that did not record it themselves, read from their logs. Needs no accounting.

The supervisor of a job records failures. If it was killed too (memory of the whole job, a lost node, a time limit
without a warning) or never started (setup), the log still says which unit was running, where, and often why it ended.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from jobs.files.failures import Failure, FailureClass, Place, following, record_death
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
    (r"CANCELLED AT", None),  # by a user: nothing has failed
)


def find_deaths(
    manifest: Manifest,
    store: Store,
    *,
    is_pending: Callable[[str], bool],
    recorded: Mapping[str, Failure],
) -> tuple[list[Failure], set[str]]:
    """Failures without a record, read only from the log of the last job of each unit that ``is_pending``.

    The second result names units that may still run: their job updated its log a moment ago and nothing says that it
    ended, so SLURM may have lost its records. ``recorded`` holds the last recorded failures, by unit.
    """
    deaths, alive, seen = list[Failure](), set[str](), set[str]()
    for name in arrays_of(store, manifest.grid):  # the latest first
        tasks, logs = read_tasks(store, name) or [], None
        for index, units in enumerate(tasks):
            new = [unit for unit in units if unit not in seen and is_pending(unit)]
            if not new:
                continue
            seen.update(new)
            logs = slurm_logs(store, name) if logs is None else logs
            if index not in logs:
                continue  # it never began
            job, log_path = logs[index]
            for death, may_live in _deaths(job, log_path, new):
                last = recorded.get(death.unit)
                if death.unit not in new or (last is not None and last.job == job):
                    continue
                if may_live:
                    alive.add(death.unit)
                else:
                    deaths.append(death if last is None else following(death, last))
    return deaths, alive


def submission_times(store: Store, grid: str) -> dict[str, float]:
    """When each unit was last submitted to SLURM for a grid, in seconds since the epoch."""
    times: dict[str, float] = {}
    for name in arrays_of(store, grid):  # the latest first
        path = store.tasks_path(*name)
        for units in read_tasks(store, name) or []:
            for unit in units:
                times.setdefault(unit, path.stat().st_mtime)
    return times


def record_deaths(deaths: Iterable[Failure], manifest: Manifest, store: Store) -> list[Failure]:
    """Record deaths as failures."""
    return [
        record_death(
            store,
            unit_named(death.unit, manifest),
            death.failure_class,
            death.message,
            Path(death.log_path),
            place=Place(host=death.host, gpus=death.gpus, job=death.job),
        )
        for death in deaths
    ]


def _deaths(job: str, log_path: Path, units: Iterable[str]) -> Iterator[tuple[Failure, bool]]:
    """Failures of the units that were running when a job ended, or of all its units if it ended before the first.

    And whether each may still run. None for units that were saved or cancelled.
    """
    log = joblog.read_job_log(log_path, job)
    for lost in log.lost:
        reason = _reason(lost.after)
        failure_class, message = reason or ("unknown", "its job ended without an error message; see its log")
        if failure_class is not None and (reason or not lost.was_interrupted):
            message = (reason and joblog.said_by_another(log_path, lost.unit)) or message
            may_live = reason is None and joblog.is_beating(log_path)
            yield _failure(lost.unit, failure_class, message, lost.where, log_path), may_live
    if log.host is None or log.num_units:
        return
    said = log.last_lines or "(the log contains nothing else)"
    before = f"the job ended before its first unit began; check cluster.setup, cluster.python and the node:\n{said}"
    failure_class, message = _reason(log.text) or ("setup", before)
    if failure_class == "unknown":
        failure_class, message = "setup", before
    if failure_class is not None:
        place = Place(host=log.host, gpus="", job=job)
        yield from ((_failure(unit, failure_class, message, place, log_path), False) for unit in units)


def _failure(unit: str, failure_class: FailureClass, message: str, place: Place, log_path: Path) -> Failure:
    return Failure(
        unit=unit,
        failure_class=failure_class,
        message=message,
        log_path=str(log_path),
        attempt=1,
        time=log_path.stat().st_mtime,
        **vars(place),
    )


def _reason(text: str) -> tuple[FailureClass | None, str] | None:
    """Why a job ended, by SLURM's line in its log: class (None: nothing has failed) and line."""
    for pattern, failure_class in _REASONS:
        match = re.search(f"^.*(?:{pattern}).*$", text, re.MULTILINE | re.IGNORECASE)
        if match:
            return failure_class, match[0].strip()
    return None
