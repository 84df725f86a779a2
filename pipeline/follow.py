"""Follows what was handed to SLURM until nothing of it is under way: wait=true."""

from __future__ import annotations

import sys
import time
from collections import Counter

from configs.entry import EXIT_FAILED
from jobs.files.store import Store
from jobs.specs.runs import Manifest
from jobs.specs.units import STAGES
from pipeline import text
from pipeline.state.look import Status, is_under_way, look


def follow(manifest: Manifest, store: Store, *, poll_s: float) -> int:
    """Print a line whenever something has changed; 0 if the grid is complete at the end, else 1.

    While SLURM does not answer, it waits: what is unknown is not over.
    """
    said = ""
    while True:
        current = look(manifest, store)
        line = _line(current)
        if line != said:
            print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
            said = line
        if not is_under_way(current.found.activity):
            break
        time.sleep(poll_s)
    for unit in current.states.units:
        if unit.failure:
            print(text.failure_text(unit.failure), file=sys.stderr)
    if current.states.aggregate.state == "done":
        print("complete")
        return 0
    print("not complete, and nothing is under way: launch again to do what is missing", file=sys.stderr)
    return EXIT_FAILED


def _line(current: Status) -> str:
    if current.found.activity.problem:
        return f"unknown: {current.found.activity.problem}"
    parts = []
    for stage in STAGES:
        counts = Counter(item.state for item in current.states.units if item.unit.stage == stage)
        if not counts:  # few grids have attacks
            continue
        states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()) if state != "done")
        parts.append(f"{stage} {counts['done']}/{counts.total()}" + (f" ({states})" if states else ""))
    return "; ".join(parts)
