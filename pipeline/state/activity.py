"""Which units are in progress: in the queue of a scheduler, or in a launch on this machine."""

import fcntl
import os
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path

from jobs.atomic import read_json, write_json
from jobs.files.store import Store
from jobs.specs.runs import Manifest
from jobs.specs.units import Unit
from pipeline.state import commands, queue
from pipeline.state.ledger import ArrayName, launched_by, read_tasks
from pipeline.state.queue import QueuedTask, with_dependents


@dataclass(frozen=True, kw_only=True)
class Activity:
    """Names of the units that are running and queued."""

    running: frozenset[str] = frozenset()  # all units of running jobs, including those that they have not reached yet
    queued: frozenset[str] = frozenset()
    tasks: Mapping[str, QueuedTask] = field(default_factory=dict)  # the array task of each of these units, if any
    # Tasks that SLURM will never run, and the tasks that wait for them; their units are not in progress
    stuck: tuple[QueuedTask, ...] = ()
    # Stuck tasks that stay in the queue, because new ones would request the same; their units are queued
    refused: tuple[QueuedTask, ...] = ()
    num_tasks: int = 0  # all tasks of this user in the queue, of any project, without the stuck ones
    problem: str | None = None  # why it is unknown what is in progress; None if it is known

    @cached_property
    def in_progress(self) -> frozenset[str]:
        return self.running | self.queued

    @property
    def may_run(self) -> bool:
        """Whether anything is, or may be, running or queued."""
        return bool(self.in_progress) or self.problem is not None

    def arrays_with(self, units: Iterable[str]) -> list[str]:
        """Job ids of the arrays that contain any of these units."""
        return sorted({self.tasks[unit].array_id for unit in units if unit in self.tasks})


def units_of(manifest: Manifest, names: Iterable[str]) -> list[str]:
    """The units among ``names`` that a grid needs, even if they were launched for another grid."""
    stems = {f"train/{key}" for key in manifest.models} | {run.name for run in manifest.runs}
    return [name for name in names if not stems.isdisjoint((name, name.rpartition("/")[0]))]


def read_queue(store: Store, *more: str | None) -> list[QueuedTask]:
    """``queue.read_queue`` of all who launched into a results folder, on all clusters used and ``more``."""
    clusters, users = launched_by(store)
    return queue.read_queue(clusters.union(more) or {commands.default_cluster()}, users)


def slurm_activity(
    store: Store, grid: str, tasks_in_queue: Collection[QueuedTask], *, keep: Collection[QueuedTask] = ()
) -> Activity:
    """Units of this store that are in SLURM's queue, launched for any grid; but only this grid's aggregation.

    Opens one file for each of our arrays in the queue. Stuck tasks to ``keep`` stay in it: their units count as queued.
    """
    known: dict[ArrayName, list[list[str]] | None] = {}
    units: dict[QueuedTask, list[str]] = {}
    for task in tasks_in_queue:
        name = ArrayName.parse(task.job_name)
        if name is None or (name.stage == "aggregate" and name.grid != grid):
            continue
        units_by_task = known[name] = known[name] if name in known else read_tasks(store, name)
        if units_by_task is not None and task.index < len(units_by_task):  # else of another results folder
            units[task] = units_by_task[task.index]
    kept = frozenset(keep)
    never = with_dependents([task for task in units if task.is_stuck and task.is_own and task not in kept], units)
    stuck = {task: None for task in never if task.is_own}
    alive = {task: names for task, names in units.items() if task not in stuck}
    running = frozenset(name for task, names in alive.items() if task.is_running for name in names)
    return Activity(
        running=running,
        queued=frozenset(chain.from_iterable(alive.values())) - running,
        tasks={name: task for task, names in alive.items() for name in names},
        stuck=tuple(stuck),
        refused=tuple(task for task in keep if task in units),
        num_tasks=sum(task.is_own for task in tasks_in_queue) - len(stuck),
    )


def read_activity(store: Store, grid: str) -> Activity:
    """What a launch on this machine reports about its units."""
    path = store.activity_path(grid)
    if not path.exists() or not _is_locked(store.launch_lock_path()):
        return Activity()  # a file of a killed launch
    try:
        content = read_json(path)
    except FileNotFoundError:  # the launch has ended meanwhile
        return Activity()
    except ValueError as error:
        return Activity(problem=f"{path} is damaged ({error})")
    return Activity(running=frozenset(content["running"]), queued=frozenset(content["queued"]))


def write_activity(store: Store, grid: str, running: Iterable[Unit], queued: Iterable[Unit]) -> None:
    """Report what this launch is doing; it holds the launch lock."""
    units = {"running": [unit.name for unit in running], "queued": [unit.name for unit in queued]}
    write_json(store.activity_path(grid), {"pid": os.getpid(), **units, "time": time.time()})


def _is_locked(path: Path) -> bool:
    """Whether a launch holds the lock. Only reads the file, since status must not change anything."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
