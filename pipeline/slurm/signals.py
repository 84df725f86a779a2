"""How a task handles SLURM's warning: it saves, and its job is requeued."""

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
"""SLURM sends it before preemption and before the time limit."""


def run_interruptible(task: Callable[[], None], interrupt: Callable[[], bool]) -> None:
    """Run a task. On SLURM's warning, ``interrupt`` makes it save and stop and returns whether to requeue its job.

    If a job has several tasks, the first decides. TERM is only logged here: SLURM also sends it to the processes of
    the units, which then save.
    """

    def warned(number: int, _: FrameType | None) -> None:
        logging.warning("SLURM sent %s", signal.Signals(number).name)
        if number == WARNING_SIGNAL and is_first_task():
            if interrupt():
                requeue()
            sys.exit(1)

    signal.signal(WARNING_SIGNAL, warned)
    signal.signal(signal.SIGTERM, warned)
    task()


def requeue() -> None:
    """Requeue the job of this task. If SLURM has already done so, it refuses."""
    job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        done = commands.run(["scontrol", "requeue", job], cluster=None)
    except SchedulerError as error:
        logging.warning("cannot requeue job %s: %s", job, error)
        return
    said = done.stderr.strip()
    logging.warning("requeued job %s", job) if not done.returncode else logging.warning("job %s: %s", job, said)
