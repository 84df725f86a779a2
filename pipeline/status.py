"""python -m pipeline.status grid=NAME: what is done, running, queued, failed or missing. Changes nothing."""

if __name__ == "__main__":  # before the imports below: neither --help nor Ctrl-C waits for them
    from configs.entry import run_entry

    run_entry("status", "pipeline.status")

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass
from tabulate import tabulate

from jobs.files.manifest import GridOptions
from jobs.specs.runs import SHARD_STAGES
from jobs.specs.units import Stage, TrainUnit
from jobs.validation import STRICT, build
from jobs.wording import counted, say
from pipeline import text
from pipeline.estimate import estimate
from pipeline.follow import next_wait_s
from pipeline.state.progress import Pace, pace_of, progress_of
from pipeline.state.queue import user_name
from pipeline.state.reasons import explained
from pipeline.state.survey import STATES, State, Status, UnitState, look

_CLEAR = "\033[H\033[2J"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StatusConfig(GridOptions):
    """What to show; see configs/status.yaml."""

    verbose: bool
    watch: bool
    interval_s: Annotated[float, Field(gt=0)]


def status(values: Mapping[str, Any]) -> int:
    """Print the state of a grid; returns the exit code. Raises ConfigError if there is no such grid."""
    config = build(StatusConfig, values, where="")
    store, manifest = config.open()
    said, changed_at = "", time.monotonic()
    while True:
        current = look(manifest, store)
        if config.watch and sys.stdout.isatty():
            print(_CLEAR, end="")
        lines = "\n".join(_lines(current, verbose=config.verbose))
        say(lines)
        if lines != said:
            said, changed_at = lines, time.monotonic()
        if not config.watch or not current.found.activity.may_run:
            return 0
        time.sleep(next_wait_s(config.interval_s, time.monotonic() - changed_at))


def _lines(current: Status, *, verbose: bool) -> Iterator[str]:
    manifest, activity = current.manifest, current.found.activity
    yield f"grid {manifest.grid}: {counted(len(manifest.models), 'model')}, results in {current.store.root}"
    if activity.problem:
        yield f"note: {activity.problem}; the state of submitted jobs is unknown"
    yield _stage_table(current)
    if damaged := current.found.observed.damaged:
        yield text.damages_text(damaged)
        yield f"{counted(len(damaged), 'file')} damaged; the next launch renames them and recreates what the grid needs"
    yield _estimate_line(current)
    waiting = {task for name, task in activity.tasks.items() if name in activity.queued and not task.is_running}
    reasons = Counter(task.reason for task in waiting).most_common()
    if reasons:
        yield f"waiting: {', '.join(f'{number:,} {explained(reason)}' for reason, number in reasons)}"
    if activity.stuck:
        yield f"{text.stuck_reasons(activity.stuck)}; launch again to replace them"
    running = [item.unit for item in current.units if item.state == "running"]
    logs = {unit: current.store.log_path(manifest.grid, unit.name) for unit in running}
    paces = {unit.name: pace for unit in running if (pace := pace_of(unit, current.store, logs[unit]))}
    if slow := [(name, pace) for name, pace in paces.items() if pace.is_slow]:
        yield text.slow_text(slow)
    if verbose:
        yield from (_unit_line(item, current, paces.get(item.unit.name)) for item in current.units)
    yield from text.failure_texts([unit.failure for unit in current.units if unit.failure])


def _stage_table(current: Status) -> str:
    counts: dict[Stage, Counter[State]] = {
        "train": Counter(item.state for item in current.models),
        **{stage: Counter(item.state for item in current.of(stage)) for stage in SHARD_STAGES},
        "aggregate": Counter([current.aggregate.state]),
    }
    counts = {stage: count for stage, count in counts.items() if count}  # few grids have attacks
    shown = [state for state in STATES if state != "unknown" or any(count[state] for count in counts.values())]
    rows = [[stage, count.total(), *(count[state] for state in shown)] for stage, count in counts.items()]
    table = tabulate(rows, headers=["stage", "models", *shown], intfmt=",")
    images = {"certified": current.num_images("certify"), "attacked": current.num_images("attack")}
    lines = [f"images {what}: {done:,} of {total:,}" for what, (done, total) in images.items() if total]
    return "\n".join([table, *lines])


def _estimate_line(current: Status) -> str:
    spent_h, left_h = estimate(current.manifest, current.found.observed, current.store)
    line = f"device hours: {_hours(spent_h)} spent, {_hours(left_h)} left"
    tasks, running = current.found.activity.tasks, current.found.activity.running
    num_running = len({tasks[unit].job if unit in tasks else unit for unit in running})  # jobs or processes
    num_devices, hours = num_running + _num_helpers(current), [h for h in left_h.values() if h is not None]
    if not num_devices or len(hours) < len(left_h) or not sum(hours):
        return line
    duration = text.duration_text(3600 * sum(hours) / num_devices)
    return f"{line}: about {duration} with the {counted(num_running, 'job')} running now"


def _num_helpers(current: Status) -> int:
    """Additional processes of running trainings, each on its own device."""
    units = [TrainUnit(train=train) for train in current.manifest.models.values()]
    return sum(unit.num_processes - 1 for unit in units if unit.name in current.found.activity.running)


def _hours(by_stage: Mapping[Any, float | None]) -> str:
    values = list(by_stage.values())
    known = f"{sum(value or 0.0 for value in values):.2g}"
    unmeasured = [str(stage) for stage, value in by_stage.items() if value is None]
    return f"{known} + {' and '.join(unmeasured)} (not measured yet)" if unmeasured else known


def _unit_line(item: UnitState, current: Status, pace: Pace | None) -> str:
    unit, state = item.unit, item.state
    details = [f"{unit.part} {progress_of(unit, current.store)} of {unit.num_parts}"] if state == "running" else []
    task = current.found.activity.tasks.get(unit.name)
    if task is not None:
        details.append(f"job {task.job}" + (f" on {task.node}" if task.is_running else f" ({task.reason})"))
        if not task.is_own:
            details.append(f"submitted by {user_name(task.user)}")
    if pace is not None:
        details.append(text.pace_text(pace))
    if state in ("running", "failed", "unknown"):
        log_path = current.store.log_path(current.manifest.grid, unit.name)
        details.append(f"log: {item.failure.log_path if item.failure else log_path}")
    return f"{state:8} {unit.name}  {', '.join(details)}".rstrip()
