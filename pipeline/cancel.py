"""python -m pipeline.cancel grid=NAME: cancel the SLURM jobs of one grid."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from configs.entry import EXIT_FAILED, run_entry
from jobs.files.manifest import open_grid
from jobs.files.store import Store
from jobs.validation import STRICT, build
from pipeline.state import queue
from pipeline.state.activity import tasks_of_grid
from pipeline.state.queue import SchedulerError


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CancelConfig:
    """What to cancel; see configs/cancel.yaml."""

    grid: str | None
    results: Annotated[str, Field(min_length=1)]


def cancel(values: Mapping[str, Any]) -> int:
    """Cancel what SLURM has of a grid; returns the exit code.

    Raises:
        ConfigError: No such grid was launched into the results folder.
    """
    config = build(CancelConfig, values, where="cancel")
    store = Store(Path(config.results))
    grid = open_grid(store, config.grid).grid
    try:
        tasks = tasks_of_grid(store, grid, queue.read_queue())
        queue.cancel(task.array_id for task in tasks)
    except SchedulerError as error:
        print(f"error: {error}; nothing is known to be cancelled, try again", file=sys.stderr)
        return EXIT_FAILED
    num_running = sum(task.is_running for task in tasks)
    print(f"grid {grid}: cancelled {len(tasks)} jobs, {num_running} of them running")
    return 0


if __name__ == "__main__":
    run_entry("cancel", cancel)
