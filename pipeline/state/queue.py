"""Queries SLURM's queue and cancels jobs. A job that is not in the queue has not failed; no answer is no empty one."""

import os
import pwd
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.state import commands
from pipeline.state.commands import SchedulerError
from pipeline.state.reasons import Kind, kind_of

DEFAULT_MAX_ARRAY_SIZE = 1001
_FORMAT = "%F|%K|%t|%j|%N|%U|%E|%e|%r"
_LINE = re.compile(r"(\d+)\|(\d+|N/A)\|([A-Z]+)\|([^|]*)\|([^|]*)\|(\d+)\|([^|]*)\|([^|]*)\|(.*)")
_DEPENDENCY = re.compile(r"(?:(after\w+):)?(\d+)(?:_\*|_\d+)?(?:\+\d+)?(?:\(\w+\))?")
_RUNNING = {"R", "CG", "CF", "S", "SO", "ST", "SI"}
_WAITING = {"PD", "RQ", "RH", "RF", "RD", "RS", "RV", "SE"}


@dataclass(frozen=True, kw_only=True)
class QueuedTask:
    """One task of an array that is queued or running."""

    array_id: str  # job id of the array
    index: int  # within the array
    is_running: bool  # False while it waits
    job_name: str  # name of the array
    node: str  # where it runs; empty while it waits
    reason: str  # why it waits, in SLURM's words
    user: int  # id of the user who submitted it
    dependency: str = ""  # what it still waits for, as squeue shows it
    cluster: str | None = None  # the cluster that has it; None for the default one

    @property
    def kind(self) -> Kind:
        """What SLURM's reason means for the task."""
        return "waits" if self.is_running else kind_of(self.reason)

    @property
    def is_stuck(self) -> bool:
        """Whether it will never run, by SLURM's reason."""
        return self.kind in ("lost", "refused")

    @property
    def is_own(self) -> bool:
        """Whether this user submitted it and may cancel it."""
        return self.user == os.getuid()

    @property
    def job(self) -> str:
        """Its id for scancel and in logs: 1234_56."""
        return f"{self.array_id}_{self.index}"


def with_dependents(stuck: Iterable[QueuedTask], tasks: Iterable[QueuedTask]) -> list[QueuedTask]:
    """Stuck tasks, and the tasks that can never run because they wait for one of them."""
    found = {(task.cluster, task.job): task for task in stuck}
    indices: dict[tuple[str | None, str], set[int]] = defaultdict(set)
    for task in found.values():
        indices[task.cluster, task.array_id].add(task.index)
    for task in sorted(tasks, key=lambda task: int(task.array_id)):  # a dependent has the higher number
        kind = ""
        for kind_given, array_id in [] if task.is_running else _DEPENDENCY.findall(task.dependency):
            kind = kind_given or kind
            ahead = indices[task.cluster, array_id]
            if task.index in ahead if kind == "aftercorr" else ahead:
                found.setdefault((task.cluster, task.job), task)
                indices[task.cluster, task.array_id].add(task.index)
    return [*found.values()]


def user_name(user: int) -> str:
    """The name of a user; the number if there is no name."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def is_installed() -> bool:
    """Whether this machine has SLURM's commands."""
    return shutil.which("sbatch") is not None


def is_configured() -> bool:
    """Whether SLURM's commands know a cluster, even if its controller does not answer."""
    try:
        _call(["scontrol", "show", "config"], commands.default_cluster())
    except SchedulerError as error:
        return "configuration source" not in str(error)
    return True


def read_queue(clusters: Iterable[str | None] | None = None, users: Iterable[int] = ()) -> list[QueuedTask]:
    """All queued or running tasks of this user and of others by their ids; one squeue call for each cluster."""
    whose = ",".join(map(str, sorted({os.getuid(), *users})))
    command = ["squeue", "--noheader", "--array", f"--user={whose}", f"--format={_FORMAT}"]
    found: dict[tuple[str, str], QueuedTask] = {}  # a cluster may be queried twice: by its name, and as the default
    for cluster in [commands.default_cluster()] if clusters is None else clusters:
        for line in filter(str.strip, _call(command, cluster).splitlines()):
            if task := _parse(line, cluster):
                found.setdefault((task.job, task.job_name), task)
    return [*found.values()]


def cancel(tasks: Iterable[QueuedTask], *, whole_arrays: bool = False) -> None:
    """Cancel tasks, or their whole arrays; see ``cancel_jobs``."""
    jobs: dict[str | None, set[str]] = defaultdict(set)
    for task in tasks:
        jobs[task.cluster].add(task.array_id if whole_arrays else task.job)
    for cluster, names in jobs.items():
        cancel_jobs(names, cluster)


def cancel_jobs(names: Iterable[str], cluster: str | None) -> None:
    """Cancel arrays (1234) or tasks (1234_56) unless they have ended. Raises SchedulerError if scancel fails."""
    jobs = sorted(set(names))
    if jobs:
        _call(["scancel", *jobs], cluster, ignore="already completing|already completed|Invalid job id")


def max_array_size(cluster: str | None = None) -> int:
    """The largest number of tasks in an array; SLURM's default value if unknown."""
    try:
        answer = _call(["scontrol", "show", "config"], cluster)
    except SchedulerError:
        return DEFAULT_MAX_ARRAY_SIZE
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", answer, re.MULTILINE)
    return max(1, int(found[1])) if found else DEFAULT_MAX_ARRAY_SIZE


def _parse(line: str, cluster: str | None) -> QueuedTask | None:
    if (match := _LINE.fullmatch(line.strip())) is None:
        raise SchedulerError(f"squeue printed a line that is not a job: {line.strip()[:200]!r}")
    array_id, index, state, job_name, node, user, dependency, end_time, reason = match.groups()
    # A completing job that will be requeued has no end time.
    is_over = state == "CG" and end_time not in ("NONE", "N/A", "Unknown")
    if is_over or state not in _RUNNING | _WAITING:
        return None
    return QueuedTask(
        array_id=array_id,
        index=0 if index == "N/A" else int(index),
        is_running=state in _RUNNING,
        job_name=job_name,
        node=node,
        reason=reason,
        user=int(user),
        dependency=dependency,
        cluster=cluster,
    )


def _call(command: Sequence[str], cluster: str | None, ignore: str | None = None) -> str:
    done = commands.run(command, cluster=cluster)
    if done.returncode and not (ignore and re.search(ignore, done.stderr)):
        *_, reason = ["no message", *done.stderr.strip().splitlines()]
        raise SchedulerError(f"{command[0]} failed with exit code {done.returncode}: {reason}")
    return done.stdout
