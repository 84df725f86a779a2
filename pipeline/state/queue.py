"""Questions to SLURM and cancellations: bounded in time, and an error where there is no sound answer.

An absent job is never taken for a failed one here, and no answer is never taken for an empty queue.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TIMEOUT_S = 60.0
DEFAULT_MAX_ARRAY_SIZE = 1001
_FORMAT = "%F|%K|%t|%j|%N|%r"
_LINE = re.compile(r"(\d+)\|(\d+|N/A)\|([A-Z]+)\|([^|]*)\|([^|]*)\|(.*)")
_RUNNING = {"R", "CG", "CF", "S", "SO", "ST", "SI"}
_WAITING = {"PD", "RQ", "RH", "RF", "RD", "RS", "RV", "SE"}
# Reasons for which a task stays in the queue for ever.
_STUCK = re.compile(
    r"dependency.?never.?satisfied|partition(node|time)?(config|limit)|bad.?constraints|launch.failed.requeued.held"
    r"|jobholdmaxrequeue",
    re.IGNORECASE,
)


class SchedulerError(RuntimeError):
    """SLURM gives no answer, or none that can be understood: nothing is known of its jobs."""


@dataclass(frozen=True, kw_only=True)
class QueuedTask:
    """One task of an array that SLURM has in its queue or runs.

    Attributes:
        array_id: Job id of the array.
        index: Within the array.
        is_running: False while it waits.
        job_name: Name of the array.
        node: Where it runs; empty while it waits.
        reason: Why it waits, in SLURM's word.
    """

    array_id: str
    index: int
    is_running: bool
    job_name: str
    node: str
    reason: str

    @property
    def is_stuck(self) -> bool:
        """Whether it will never run, by the reason SLURM gives."""
        return not self.is_running and _STUCK.search(self.reason) is not None

    @property
    def job(self) -> str:
        """As scancel and the logs call it: 1234_56."""
        return f"{self.array_id}_{self.index}"


def is_installed() -> bool:
    """Whether this machine has SLURM's commands."""
    return shutil.which("sbatch") is not None


def is_configured() -> bool:
    """Whether SLURM's commands know of a cluster; one whose controller does not answer counts."""
    try:
        _call(["scontrol", "show", "config"])
    except SchedulerError as error:
        return "configuration source" not in str(error)
    return True


def read_queue() -> list[QueuedTask]:
    """All of this user's tasks that are queued or running, by one squeue call.

    Raises:
        SchedulerError: squeue fails, takes too long, or its answer makes no sense.
    """
    answer = _call(["squeue", "--noheader", "--array", f"--user={os.getuid()}", f"--format={_FORMAT}"])
    return [task for line in answer.splitlines() if line.strip() and (task := _parse(line)) is not None]


def cancel(jobs: Iterable[str]) -> None:
    """Cancel arrays (1234) or tasks (1234_56), by one scancel call.

    Raises:
        SchedulerError: It fails. Jobs that have ended meanwhile are no failure.
    """
    names = sorted(set(jobs))
    if names:
        _call(["scancel", *names], ignore="already completing|already completed|Invalid job id")


def max_array_size() -> int:
    """The largest number of tasks in an array; SLURM's default where it does not say."""
    try:
        answer = _call(["scontrol", "show", "config"])
    except SchedulerError:
        return DEFAULT_MAX_ARRAY_SIZE
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", answer, re.MULTILINE)
    return max(1, int(found[1])) if found else DEFAULT_MAX_ARRAY_SIZE


def _parse(line: str) -> QueuedTask | None:
    match = _LINE.fullmatch(line.strip())
    if match is None:
        raise SchedulerError(f"squeue answered something that is not a queue: {line.strip()[:200]!r}")
    array_id, index, state, job_name, node, reason = match.groups()
    if state not in _RUNNING | _WAITING:
        return None  # ended a moment ago
    return QueuedTask(
        array_id=array_id,
        index=0 if index == "N/A" else int(index),
        is_running=state in _RUNNING,
        job_name=job_name,
        node=node,
        reason=reason,
    )


def _call(command: Sequence[str], ignore: str | None = None) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False)
    except FileNotFoundError as error:
        raise SchedulerError(f"{command[0]} is not installed here") from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerError(f"{command[0]} did not answer within {TIMEOUT_S:.0f} s") from error
    except OSError as error:
        raise SchedulerError(f"{command[0]} cannot be run ({error})") from error
    if done.returncode and not (ignore and re.search(ignore, done.stderr)):
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        raise SchedulerError(f"{command[0]} failed with code {done.returncode}: {lines[-1] if lines else 'no message'}")
    return done.stdout
