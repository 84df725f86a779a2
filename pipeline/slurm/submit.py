"""Hands an array to SLURM: one script and one sbatch call, whatever its number of tasks.

A task finds its units in the array's folder by its index, so that nothing has to be written after sbatch has
answered. The text of the script is submitit's.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import submitit

from pipeline.slurm.answer import job_number
from pipeline.state import commands
from pipeline.state.joblog import job_begins_line


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
    """Submit an array by one sbatch call.

    Args:
        folder: For script and logs; also tells the tasks what they are.
        parameters: sbatch options by submitit's names.
        num_tasks: Size of the array; an array of one is an array too.
        python: Command that runs Python on the nodes; None for this interpreter.
        cluster: The cluster to submit to; None for the default one.

    Returns:
        The array's job id.

    Raises:
        SubmissionRefusedError: It can never run.
        SubmitLimitError: Too many jobs for now.
        SchedulerError: No answer; the array may be queued or not.
    """
    path = folder / "submission.sh"
    path.write_text(script(folder, parameters, num_tasks, python), encoding="utf-8")
    given = {*parameters, *parameters.get("additional_parameters", {})}
    job = job_number(commands.run(["sbatch", str(path)], cluster=cluster, given=given))
    path.rename(folder / f"{job}_submission.sh")
    return job


class _ArrayExecutor(submitit.SlurmExecutor):
    """Makes the script of an array of our own command."""

    @property
    def _submitit_command_str(self) -> str:
        # A warning that comes before Python listens would kill it. Ignored, it is followed by a TERM.
        listen_later = """sh -c 'trap "" USR2; exec "$@"' sh"""
        return f"{listen_later} {self.python} -u -m pipeline.slurm.node {shlex.quote(str(self.folder))}"
