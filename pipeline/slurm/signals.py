"""What a task does when SLURM warns it: the task saves, and its job is put back into the queue."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from jobs.host import is_first_task
from pipeline.state import commands
from pipeline.state.commands import SchedulerError

WARNING_SIGNAL = signal.SIGUSR2
"""SLURM sends it ahead of preemption and of the time limit."""


def run_interruptible(task: Callable[[], None], interrupt: Callable[[], bool]) -> None:
    """Run a task. On SLURM's warning, ``interrupt`` has it save and stop; if that says so, its job is queued again.

    Of several tasks of one job, the first decides for all. TERM is left to the processes of the units: SLURM sends
    it to those as well, and they save.
    """

    def warned(number: int, _: FrameType | None) -> None:
        logging.warning("SLURM sent %s", signal.Signals(number).name)
        if not is_first_task():
            return
        if interrupt():
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
