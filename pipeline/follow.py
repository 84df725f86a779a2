"""Follows submitted units until none of them can run any more (``wait=true``)."""

import sys
import time
from collections import Counter
from collections.abc import Iterator

from configs.entry import EXIT_FAILED
from jobs.files.store import Store
from jobs.specs.runs import SHARD_STAGES, Manifest
from jobs.wording import say
from pipeline import text
from pipeline.request.config import SlurmConfig
from pipeline.state.survey import State, Status, look

_IDLE_SHARE = 0.1
_HOUR_S = 3600.0


def next_wait_s(poll_s: float, idle_s: float) -> float:
    """Seconds until the next query: more while nothing changes, up to 6 times ``poll_s``, and 30 after an hour."""
    return min(max(poll_s, _IDLE_SHARE * idle_s), poll_s * (6 if idle_s < _HOUR_S else 30))


def follow(manifest: Manifest, store: Store, *, poll_s: float) -> Status:
    """Print a line whenever something changes; returns the last state. Keeps waiting while SLURM does not answer."""
    said, changed_at = "", time.monotonic()
    while True:
        current = look(manifest, store)
        problem = current.found.activity.problem
        line = f"unknown: {problem}" if problem else "; ".join(_stage_texts(current))
        if line != said:
            say(f"{time.strftime('%H:%M:%S')} {line}", sys.stderr)
            said, changed_at = line, time.monotonic()
        if not current.found.activity.may_run:
            return current
        time.sleep(next_wait_s(poll_s, time.monotonic() - changed_at))


def units_with_more(slurm: SlurmConfig, current: Status) -> set[tuple[str, int]]:
    """Failed units, each with its attempt, that get more memory or time from the next launch."""
    found = set[tuple[str, int]]()
    for item in current.units:
        if item.failure is not None:
            stage, failure_class = slurm.stage(item.unit.stage), item.failure.failure_class
            given = {"host_oom": stage.memory_gb, "timeout": stage.limit_min}.get(failure_class)
            num_failures = item.failure.counts[failure_class]
            if given is not None and given(num_failures) != given(num_failures - 1):
                found.add((item.unit.name, item.failure.attempt))
    return found


def conclude(current: Status) -> int:
    """Print failures and units that can never run; returns 0 if the grid is complete, else 1."""
    for failure in text.failure_texts([unit.failure for unit in current.units if unit.failure]):
        say(failure, sys.stderr)
    if current.found.activity.stuck:
        say(text.stuck_reasons(current.found.activity.stuck), sys.stderr)
    if current.aggregate.state == "done":
        say("complete")
        return 0
    say("the grid is not complete, but nothing is running or can run; launch again to resume", sys.stderr)
    return EXIT_FAILED


def _stage_texts(current: Status) -> Iterator[str]:
    """Progress by stage, in models and images: their totals do not depend on how shards are cut."""
    models = Counter(item.state for item in current.models)
    yield f"train {models['done']}/{models.total()} models{_in_states(models)}"
    for stage in SHARD_STAGES:
        done, total = current.num_images(stage)
        if total:  # few grids have attacks
            states = Counter(shard.state for item in current.of(stage) for shard in item.shards)
            yield f"{stage} {done:,}/{total:,} images{_in_states(states)}"
    yield f"aggregate {current.aggregate.state}"


def _in_states(counts: Counter[State]) -> str:
    shown = ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items()) if state != "done")
    return f" ({shown})" if shown else ""
