"""The one place that knows submitit: array scripts and sbatch on the login node, signals on the node.

Each array is one call and one script, whatever its number of tasks: a task finds its units in the
array's folder by its index, so that nothing has to be written after sbatch has answered. Pickles,
which submitit wants for its checkpoint protocol, live in a temporary folder of the node.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import submitit
from submitit.core.job_environment import JobEnvironment
from submitit.core.submission import process_job
from submitit.core.utils import DelayedSubmission, FailedJobError, FailedSubmissionError

from pipeline.state.queue import TIMEOUT_S, SchedulerError

# Whether to go on after a time limit is the task's to decide: it knows whether it got anywhere.
_NO_LIMIT = 1_000_000
_LIMIT = re.compile(
    r"MaxSubmit|SubmitJobs?(PerUser|PerAccount)?Limit|GrpSubmit|job submit limit|MaxJobCount|QOSMaxSubmit",
    re.IGNORECASE,
)
_NO_ANSWER = re.compile(
    r"Unable to contact|Socket timed out|Connection (refused|timed out)|Zero Bytes|temporarily unable"
    r"|Transport endpoint|Communication connection|configuration source|Protocol authentication",
    re.IGNORECASE,
)


class SubmissionRefusedError(RuntimeError):
    """sbatch says no: this array can never run as it was asked for."""


class SubmitLimitError(RuntimeError):
    """sbatch says that the user has too many jobs in the queue for now."""


class Checkpointable(Protocol):
    """What runs on a node under submitit."""

    def __call__(self) -> None:
        """Run to the end."""

    def interrupt(self) -> bool:
        """Save and stop, before preemption or a time limit; whether to be queued again."""


def script(folder: Path, parameters: Mapping[str, Any], num_tasks: int, python: str | None) -> str:
    """The text that ``submit`` gives to sbatch."""
    executor = _executor(folder, parameters, num_tasks, python)
    return str(executor._make_submission_file_text(executor._submitit_command_str, "x"))


def submit(folder: Path, parameters: Mapping[str, Any], num_tasks: int, python: str | None) -> str:
    """Submit an array by one sbatch call.

    Args:
        folder: For script and logs; also tells the tasks what they are.
        parameters: sbatch options by submitit's names.
        num_tasks: Size of the array; an array of one is an array too.
        python: Command that runs Python on the nodes; None for this very interpreter.

    Returns:
        The array's job id.

    Raises:
        SubmissionRefusedError: It can never run.
        SubmitLimitError: Too many jobs for now.
        SchedulerError: No answer; the array may be queued or not.
    """
    executor = _executor(folder, parameters, num_tasks, python)
    try:
        # submitit prints what sbatch says; it goes into our errors instead
        with _own_environment(), contextlib.redirect_stderr(io.StringIO()):
            job = executor._submit_command(executor._submitit_command_str)
    except (FailedJobError, FailedSubmissionError) as error:
        raise _understood(error) from error
    finally:
        for link in folder.glob(".submission_file_*.sh"):  # the script stays under its job's number
            link.unlink(missing_ok=True)
    return str(job.job_id)


def run_checkpointable(task: Checkpointable, *, time_limit_min: int) -> None:
    """Run a task on a node; on SLURM's warning it is interrupted and put back into the queue."""
    with tempfile.TemporaryDirectory(prefix="smoothadv-") as folder:
        os.environ["SUBMITIT_FOLDER"] = folder
        delayed = DelayedSubmission(_Checkpointing(task))
        delayed.set_timeout(time_limit_min, _NO_LIMIT)
        delayed.dump(JobEnvironment().paths.submitted_pickle)
        process_job(folder)


class _Checkpointing:
    """Submitit's protocol: a call, and a method ``checkpoint`` that says what to run after a requeue."""

    def __init__(self, task: Checkpointable) -> None:
        self._task = task

    def __call__(self) -> None:
        self._task()

    def checkpoint(self) -> DelayedSubmission | None:
        # The next start reads everything from files; the pickle only says that there is one.
        return DelayedSubmission(print, "queued again") if self._task.interrupt() else None


class _ArrayExecutor(submitit.SlurmExecutor):
    """Submits a command as an array, without a pickle for each task, and waits for sbatch only so long."""

    @property
    def _submitit_command_str(self) -> str:
        # A warning that comes before Python listens would kill it. Ignored, it is followed by a TERM.
        listen_later = """sh -c 'trap "" USR2; exec "$@"' sh"""
        return f"{listen_later} {self.python} -u -m pipeline.slurm.node {shlex.quote(str(self.folder))}"

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        return ["timeout", "--kill-after=5", f"{TIMEOUT_S:.0f}", "sbatch", str(submission_file_path)]


def _executor(folder: Path, parameters: Mapping[str, Any], num_tasks: int, python: str | None) -> _ArrayExecutor:
    executor = _ArrayExecutor(folder=folder, python=python)
    executor.update_parameters(**parameters)
    executor.parameters["map_count"] = num_tasks
    return executor


@contextlib.contextmanager
def _own_environment() -> Iterator[None]:
    """Without the variables of the job that we may be in: they would be taken for options."""
    prefixes, kept = ("SLURM_", "SLURMD_", "SBATCH_", "SUBMITIT_"), {"SLURM_CONF"}
    foreign = {key: value for key, value in os.environ.items() if key.startswith(prefixes) and key not in kept}
    for key in foreign:
        del os.environ[key]
    try:
        yield
    finally:
        os.environ.update(foreign)


def _understood(error: Exception) -> Exception:
    text = str(error)
    reasons = [line.strip() for line in text.splitlines() if "error:" in line]
    reason = "; ".join(dict.fromkeys(line.partition("error:")[2].strip() for line in reasons)) or text.strip()
    if _NO_ANSWER.search(text) or not reasons:
        return SchedulerError(f"sbatch gives no answer: {reason}")
    return SubmitLimitError(reason) if _LIMIT.search(text) else SubmissionRefusedError(reason)
