"""What became of jobs that ended without a word, read from what SLURM wrote into their logs.

The supervisor of a job writes failures down itself. Where it was killed too (memory of the whole
job, a lost node, a time limit without warning), its log still says which unit was under way, where,
and often why it ended. Needs no accounting.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.files.failures import Failure, FailureClass, Place, record_death
from jobs.files.store import Store
from jobs.specs.runs import Manifest
from jobs.specs.units import unit_named
from pipeline.state.ledger import arrays_of, read_tasks, slurm_logs

_TAIL_BYTES = 1 << 16
_BEGIN = re.compile(r"INFO begin (?P<unit>\S+) on (?P<host>\S+) gpus \[(?P<gpus>[^\]]*)\]")
_ENDED = re.compile(r"(INFO end|ERROR failed|WARNING interrupted) (?P<unit>[^\s:]+)")
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
    """

    unit: str
    failure_class: FailureClass
    message: str
    place: Place
    log_path: Path
    num_before: int = 0

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
        is_pending: Whether the unit of a name is neither done nor under way.
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
            for death in _deaths(job, log_path):
                last = recorded.get(death.unit)
                if death.unit in new and (last is None or last.job != job):
                    deaths.append(replace(death, num_before=0 if last is None else last.attempt))
    return deaths


def submission_times(store: Store, grid: str) -> dict[str, float]:
    """When each unit was last handed to SLURM for a grid, in seconds since the epoch."""
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


def _deaths(job: str, log_path: Path) -> list[Death]:
    """Of the units that were under way when a job ended: one, or several that shared a GPU."""
    text = _tail(log_path)
    last_begins = {begin["unit"]: begin for begin in _BEGIN.finditer(text)}
    deaths = [_death(job, log_path, begin, text[begin.end() :]) for begin in last_begins.values()]
    return [death for death in deaths if death is not None]


def _death(job: str, log_path: Path, last: re.Match[str], after: str) -> Death | None:
    ended = [match for match in _ENDED.finditer(after) if match["unit"] == last["unit"]]
    if ended and not ended[-1][0].startswith("WARNING interrupted"):
        return None  # it ended, and told of it
    reason, failure_class = "its job ended without a word; the log may tell more", "unknown"
    for pattern, known_class in _REASONS:
        match = re.search(f"^.*(?:{pattern}).*$", after, re.MULTILINE | re.IGNORECASE)
        if match:
            if known_class is None:
                return None
            reason, failure_class = _said_by_another(log_path, last["unit"]) or match[0].strip(), known_class
            break
    else:
        if ended:
            return None  # it was asked to stop, and has saved its work
    return Death(
        unit=last["unit"],
        failure_class=failure_class,  # type: ignore[arg-type]
        message=reason,
        place=Place(host=last["host"], gpus=last["gpus"], job=job),
        log_path=log_path,
    )


def _said_by_another(log_path: Path, unit: str) -> str | None:
    """What another task of the same job wrote of a unit that several do together; None where that is nothing."""
    for path in sorted(log_path.parent.glob(log_path.name.replace("_0_log.out", "_*_log.out"))):
        said = re.findall(rf"ERROR (failed {re.escape(unit)}: .*)", _tail(path))
        if said:
            return f"{said[-1]} ({path})"
    return None


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        return file.read().decode(errors="replace")
