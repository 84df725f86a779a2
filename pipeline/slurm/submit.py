"""Submits an array with one script, which submitit writes, and one sbatch call, and interprets sbatch's answer."""

import re
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import submitit

from pipeline.state import commands
from pipeline.state.commands import SchedulerError
from pipeline.state.joblog import job_begins_line

_NUMBER = re.compile(r"^\s*Submitted batch job (\d+)|^(\d+)(?:;\S+)?\s*$", re.MULTILINE)
# The sentence "Job violates accounting/QOS policy (job submit limit, ...)" appears for any limit, so it is not here.
_FULL_QUEUE = re.compile(
    r"\w*MaxSubmit\w*|\w*GrpSubmit\w*|SubmitJobs?(PerUser|PerAccount)?Limit|MaxJobCount", re.IGNORECASE
)
_NO_ANSWER = re.compile(
    r"Unable to contact|Socket timed out|Connection (refused|timed out)|Zero Bytes|temporarily unable"
    r"|Transport endpoint|Communication connection|configuration source|Protocol authentication",
    re.IGNORECASE,
)
_SAID_NO = re.compile(
    r"\b(?:error|fatal): *(.*)|(unrecognized option.*|option .*(?:doesn't allow|requires) an argument.*)"
)
_EXIT_OF_A_TIMEOUT = (124, 137)  # of the command timeout, in which a site may wrap sbatch


class SubmissionRefusedError(RuntimeError):
    """sbatch refuses: this array can never run with these options."""


class SubmitLimitError(RuntimeError):
    """sbatch refuses because the user has too many jobs in the queue at present."""


def script(folder: Path, parameters: Mapping[str, Any], num_tasks: int, python: str | None) -> str:
    """The text that ``submit`` gives to sbatch."""
    executor = _ArrayExecutor(folder=folder, python=python)
    begins = job_begins_line(parameters["job_name"])
    executor.update_parameters(**{**parameters, "setup": [begins, *parameters["setup"]]})
    executor.parameters["map_count"] = num_tasks
    return str(executor._make_submission_file_text(executor._submitit_command_str, "x"))


def submit(
    folder: Path, parameters: Mapping[str, Any], num_tasks: int, python: str | None, cluster: str | None = None
) -> str:
    """Submit an array, whose tasks read their units from the folder; returns its job id. Raises as ``job_number``."""
    path = folder / "submission.sh"
    path.write_text(script(folder, parameters, num_tasks, python), encoding="utf-8")
    given = {*parameters, *parameters.get("additional_parameters", {})}
    job = job_number(commands.run(["sbatch", str(path)], cluster=cluster, given=given))
    path.rename(folder / f"{job}_submission.sh")
    return job


class _ArrayExecutor(submitit.SlurmExecutor):
    """Makes the script of an array that runs our command."""

    @property
    def _submitit_command_str(self) -> str:
        # A warning before Python listens would kill it. If it is ignored, a TERM follows.
        listen_later = """sh -c 'trap "" USR2; exec "$@"' sh"""
        return f"{listen_later} {self.python} -u -m pipeline.slurm.node {shlex.quote(str(self.folder))}"


def job_number(done: subprocess.CompletedProcess[str]) -> str:
    """The id of the job that sbatch has submitted.

    Raises SubmissionRefusedError or SubmitLimitError if sbatch refuses, else SchedulerError: the job may be queued or
    not.
    """
    numbers = _NUMBER.findall(done.stdout)
    if done.returncode == 0 and numbers:
        return "".join(numbers[-1])
    text = f"{done.stderr}\n{done.stdout}".strip()
    reasons = [(match[1] or match[2]).strip() for line in text.splitlines() if (match := _SAID_NO.search(line))]
    reason = "; ".join(dict.fromkeys(reasons)) or " ".join(text.split())[:500]
    if numbers or done.returncode <= 0 or done.returncode in _EXIT_OF_A_TIMEOUT or _NO_ANSWER.search(text) or not text:
        raise SchedulerError(f"sbatch did not answer (exit code {done.returncode}): {reason or 'no message'}")
    if _FULL_QUEUE.search(text):
        raise SubmitLimitError(reason)
    raise SubmissionRefusedError(reason)
