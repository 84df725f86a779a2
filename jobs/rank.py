"""Which of the tasks of a SLURM job this process belongs to, as submitit's scripts start them."""

from __future__ import annotations

import os


def num_tasks() -> int:
    """Tasks that srun has started to do one thing together; 1 outside of such a job."""
    is_ours = os.environ.get("SUBMITIT_EXECUTOR") == "slurm"
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) if is_ours else 1


def rank() -> int:
    """The number of this task among them, from 0."""
    return int(os.environ.get("SLURM_PROCID", "0")) if num_tasks() > 1 else 0


def is_first_task() -> bool:
    """Whether this task is the first, or the only one."""
    return rank() == 0
