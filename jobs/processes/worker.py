"""Runs one unit in this process: the boundary at which failures are recorded.

Imports the stage's module by name when it runs, so that code that schedules units never imports torch.
"""

import contextlib
import importlib
import logging
import os
import socket
import sys
from pathlib import Path
from typing import TextIO

from jobs.errors import FailedElsewhereError, TaskFailedError
from jobs.files import failures
from jobs.files.store import Store
from jobs.host import is_first_task, num_tasks, rank
from jobs.plugins.guards import guarded
from jobs.plugins.loading import described
from jobs.processes.interrupt import exits_raised
from jobs.processes.usage import clocks, log_usage
from jobs.specs.units import Resources, Stage, Unit

STAGE_MODULES: dict[Stage, str] = {
    "train": "jobs.train",
    "certify": "jobs.certify",
    "attack": "jobs.attack",
    "aggregate": "jobs.aggregate",
}


def execute(unit: Unit, store: Store, resources: Resources, log_path: Path) -> None:
    """Run a unit to its end; ``log_path`` is where this process logs, for the failure record.

    Raises whatever ended the unit, after recording it; or FailedElsewhereError if another task of this job records it.
    """
    gpus, began = os.environ.get("CUDA_VISIBLE_DEVICES", "all"), clocks()
    logging.info("begin %s (host %s, gpus [%s], process %d)", unit.name, socket.gethostname(), gpus, os.getpid())
    try:
        stage = importlib.import_module(STAGE_MODULES[unit.stage])
        with contextlib.ExitStack() as stack:
            if resources.plugins:
                stack.enter_context(guarded(100_000, "one unit", stdout=sys.stdout, stderr=sys.stderr))
            stack.enter_context(exits_raised())
            stage.run(unit, store, resources)
    except Exception as error:
        logging.exception("failed %s", unit.name)
        # If there are several tasks, the one that failed first records the reason, with its node and GPU.
        # Before they know of each other, it is the first one's to do.
        reason, records = error, is_first_task()
        if isinstance(error, TaskFailedError) and isinstance(error.__cause__, Exception):
            reason, records = error.__cause__, error.is_first
        if not records:
            raise FailedElsewhereError(f"another task of {unit.name} records why it failed") from error
        failures.record_exception(store, unit, reason, described(reason), log_path)
        raise reason from reason.__cause__
    failures.forget(store, unit)
    log_usage(began)
    logging.info("end %s", unit.name)


def log_to(stream: TextIO = sys.stderr) -> None:
    """Send this process's log lines to a stream, with the time, and the task if there are several."""
    who = f"rank {rank()} " if num_tasks() > 1 else ""
    text = f"%(asctime)s {who}%(levelname)s %(message)s"
    logging.basicConfig(stream=stream, level=logging.INFO, format=text, force=True)
