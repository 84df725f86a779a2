"""What sbatch answers: a job number, a refusal, a full queue, or nothing that can be relied on."""

from __future__ import annotations

import re
import subprocess

from pipeline.state.commands import SchedulerError

_NUMBER = re.compile(r"^\s*Submitted batch job (\d+)|^(\d+)(?:;\S+)?\s*$", re.MULTILINE)
# The sentence "Job violates accounting/QOS policy (job submit limit, ...)" stands for any limit: not one of these.
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
_EXIT_OF_A_TIMEOUT = (124, 137)  # of the command timeout, which a site's own sbatch may be wrapped in


class SubmissionRefusedError(RuntimeError):
    """sbatch says no: this array can never run as it was asked for."""


class SubmitLimitError(RuntimeError):
    """sbatch says that the user has too many jobs in the queue for now."""


def job_number(done: subprocess.CompletedProcess[str]) -> str:
    """The number of the job that sbatch has submitted.

    Raises:
        SubmissionRefusedError: It refuses.
        SubmitLimitError: It refuses because too many jobs are in the queue.
        SchedulerError: Anything else: the job may be queued or not.
    """
    numbers = _NUMBER.findall(done.stdout)
    if done.returncode == 0 and numbers:
        return "".join(numbers[-1])
    text = f"{done.stderr}\n{done.stdout}".strip()
    reason = "; ".join(dict.fromkeys(_reasons(text))) or " ".join(text.split())[:500]
    if numbers or done.returncode <= 0 or done.returncode in _EXIT_OF_A_TIMEOUT or _NO_ANSWER.search(text) or not text:
        raise SchedulerError(f"sbatch gives no answer (exit code {done.returncode}): {reason or 'no message'}")
    if _FULL_QUEUE.search(text):
        raise SubmitLimitError(reason)
    raise SubmissionRefusedError(reason)


def _reasons(text: str) -> list[str]:
    return [(match[1] or match[2]).strip() for line in text.splitlines() if (match := _SAID_NO.search(line))]
