"""SLURM's commands: all of them run in one environment, without input, and for a limited time."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Mapping, Sequence

TIMEOUT_S = 60.0
"""A command that takes longer is stopped; what it asked for may have happened or not."""

_OF_SLURM = ("SLURM", "SBATCH_", "SQUEUE_", "SCANCEL_", "SCONTROL_", "SALLOC_", "SINFO_", "SUBMITIT_")
_CONNECTION = {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_CLUSTERS"}
_CHOICES = ("account", "partition", "qos", "constraint", "reservation", "wckey", "gres")


class SchedulerError(RuntimeError):
    """SLURM gives no answer, or one that cannot be understood: the state of its jobs is unknown."""


def default_cluster() -> str | None:
    """The cluster that the user's environment names; None for the one that SLURM's configuration names."""
    return os.environ.get("SBATCH_CLUSTERS") or os.environ.get("SLURM_CLUSTERS") or None


def environment(cluster: str | None, given: Collection[str] = ()) -> dict[str, str]:
    """The environment of SLURM's commands, and so of the jobs that sbatch submits.

    The user's defaults for single commands (SQUEUE_STATES, SCANCEL_STATE, SBATCH_TIMELIMIT, ...) are left out, and so
    are the variables of the job that this process may run in. How to reach SLURM and what to charge stay.

    Args:
        cluster: The cluster to talk to, where there are several.
        given: sbatch options that are given otherwise: the user's variables of these names would override them.
    """
    choices = {f"SBATCH_{name.upper()}" for name in _CHOICES if name not in given}
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_OF_SLURM) or name in _CONNECTION | choices
    }
    kept.pop("SLURM_CLUSTERS", None)
    return kept if cluster is None else {**kept, "SLURM_CLUSTERS": cluster}


def run(
    command: Sequence[str], *, cluster: str | None, given: Collection[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run one of SLURM's commands.

    Raises:
        SchedulerError: It cannot be run, or does not end in time.
    """
    settings: Mapping[str, str] = environment(cluster, given)
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            env=settings,
            check=False,
        )
    except FileNotFoundError as error:
        raise SchedulerError(f"{command[0]} is not installed here") from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerError(f"{command[0]} did not answer within {TIMEOUT_S:.0f} s") from error
    except OSError as error:
        raise SchedulerError(f"{command[0]} cannot be run ({error})") from error
