"""Runs SLURM's commands: with a common environment, without input, and for a limited time."""

import os
import subprocess
from collections.abc import Collection, Sequence

TIMEOUT_S = 60.0
"""A command that takes longer is stopped; it may have had its effect or not."""

_OF_SLURM = ("SLURM", "SBATCH_", "SQUEUE_", "SCANCEL_", "SCONTROL_", "SALLOC_", "SINFO_", "SUBMITIT_")
_CONNECTION = {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT"}
_CHOICES = ("account", "partition", "qos", "constraint", "reservation", "wckey", "gres")


class SchedulerError(RuntimeError):
    """SLURM does not answer, or its answer makes no sense: the state of its jobs is unknown."""


def default_cluster() -> str | None:
    """The cluster that the user's environment names; None for the default of SLURM's configuration."""
    return os.environ.get("SBATCH_CLUSTERS") or os.environ.get("SLURM_CLUSTERS") or None


def environment(cluster: str | None, given: Collection[str] = ()) -> dict[str, str]:
    """The environment of SLURM's commands for a cluster, and so of the jobs that sbatch submits.

    It keeps how to reach SLURM and what to charge. It lacks the user's defaults for single commands (SQUEUE_STATES,
    ...), the variables of the job that this process may run in, and those that override the sbatch options ``given``.
    """
    choices = {f"SBATCH_{name.upper()}" for name in _CHOICES if name not in given}
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_OF_SLURM) or name in _CONNECTION | choices
    }
    return kept if cluster is None else {**kept, "SLURM_CLUSTERS": cluster}


def run(
    command: Sequence[str], *, cluster: str | None, given: Collection[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run one of SLURM's commands. Raises SchedulerError if it cannot be run or does not end in time."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            env=environment(cluster, given),
            check=False,
        )
    except FileNotFoundError as error:
        raise SchedulerError(f"{command[0]} is not installed here") from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerError(f"{command[0]} did not answer within {TIMEOUT_S:.0f} s") from error
    except OSError as error:
        raise SchedulerError(f"{command[0]} cannot be run ({error})") from error
