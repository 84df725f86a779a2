"""What a task does when SLURM warns it: the task saves, and its job is put back into the queue."""

from __future__ import annotations

import logging
import os
import signal
import sys
from types import FrameType
from typing import Protocol

from jobs.rank import is_first_task
from pipeline.state import commands
from pipeline.state.commands import SchedulerError

WARNING_SIGNAL = signal.SIGUSR2
"""SLURM sends it ahead of preemption and of the time limit."""


class Interruptible(Protocol):
    """What runs on a node."""

    def __call__(self) -> None:
        """Run to the end."""

    def interrupt(self) -> bool:
        """Save and stop; whether the job is to be queued again."""


def run_interruptible(task: Interruptible) -> None:
    """Run a task. On SLURM's warning it is interrupted, and its job is queued again unless that is in vain.

    Of several tasks of one job, the first decides for all. TERM is left to the processes of the units: SLURM sends
    it to those as well, and they save.
    """

    def warned(number: int, _: FrameType | None) -> None:
        logging.warning("SLURM sent %s", signal.Signals(number).name)
        if not is_first_task():
            return
        if task.interrupt():
            requeue()
        sys.exit(1)

    signal.signal(WARNING_SIGNAL, warned)
    signal.signal(signal.SIGTERM, lambda number, _: logging.warning("SLURM sent %s", signal.Signals(number).name))
    task()


def requeue() -> None:
    """Put the job of this task back into the queue. SLURM may have done that already, and then refuses."""
    job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        done = commands.run(["scontrol", "requeue", job], cluster=None)
    except SchedulerError as error:
        logging.warning("cannot queue job %s again: %s", job, error)
        return
    said = done.stderr.strip()
    logging.warning("queued job %s again", job) if not done.returncode else logging.warning("job %s: %s", job, said)
