"""Where this process runs: its CPUs, and its task in a SLURM job that submitit started."""

import os


def num_cpus() -> int:
    """The number of CPUs that this process may use, at least 1; an affinity mask may reduce it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def num_tasks() -> int:
    """The number of tasks that srun started together; 1 outside such a job."""
    is_ours = os.environ.get("SUBMITIT_EXECUTOR") == "slurm"
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) if is_ours else 1


def rank() -> int:
    """The number of this task among them, from 0."""
    return int(os.environ.get("SLURM_PROCID", "0")) if num_tasks() > 1 else 0


def is_first_task() -> bool:
    """Whether this task is the first, or the only one."""
    return rank() == 0
