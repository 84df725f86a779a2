"""python -m pipeline.cancel grid=NAME: cancel the SLURM jobs of one grid."""

if __name__ == "__main__":  # before the imports below: neither --help nor Ctrl-C waits for them
    from configs.entry import run_entry

    run_entry("cancel", "pipeline.cancel")

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from configs.entry import EXIT_FAILED
from jobs.errors import RecordError
from jobs.files.manifest import GridOptions, read_manifest
from jobs.files.store import Store
from jobs.validation import build
from jobs.wording import counted, say
from pipeline.state import queue
from pipeline.state.activity import read_queue, slurm_activity, units_of
from pipeline.state.commands import SchedulerError
from pipeline.state.ledger import arrays_of
from pipeline.state.queue import QueuedTask

_PATIENCE_S, _POLL_S = 20.0, 0.5


def cancel(values: Mapping[str, Any]) -> int:
    """Cancel the SLURM jobs of a grid; returns the exit code. Raises ConfigError if there is no such grid."""
    store, manifest = build(GridOptions, values, where="").open()
    grid = manifest.grid
    try:
        arrays = {str(name) for name in arrays_of(store, grid)}
        found = [task for task in read_queue(store) if task.job_name in arrays]
        tasks = [task for task in found if task.is_own]
        units = slurm_activity(store, grid, tasks).in_progress
        queue.cancel(tasks, whole_arrays=True)
        left = _left(store, tasks)
    except SchedulerError as error:
        say(f"error: {error}; it is unknown whether anything was cancelled; try again", sys.stderr)
        return EXIT_FAILED
    if others := {task.user for task in found if not task.is_own}:
        say(f"note: {len(found) - len(tasks)} more jobs belong to {', '.join(map(queue.user_name, sorted(others)))}")
    if left:
        say(f"error: grid {grid}: {len(left)} of {len(tasks)} jobs are still in the queue; try again", sys.stderr)
        return EXIT_FAILED
    num_running = sum(task.is_running for task in tasks)
    say(f"grid {grid}: cancelled {counted(len(tasks), 'job')}, {num_running} of them running")
    for other in store.grid_names():
        with contextlib.suppress(RecordError):
            if other != grid and (shared := units_of(read_manifest(store.manifest_path(other)), units)):
                say(f"note: grid {other} needs {len(shared)} of the cancelled units too; launch it again")
    return 0


def _left(store: Store, cancelled: Sequence[QueuedTask]) -> list[QueuedTask]:
    """Cancelled tasks that are still in the queue; waits a moment for SLURM."""
    deadline = time.monotonic() + _PATIENCE_S
    names = {(task.cluster, task.job) for task in cancelled}
    while names:
        left = [task for task in read_queue(store) if (task.cluster, task.job) in names]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(_POLL_S)
    return []
