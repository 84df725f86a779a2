"""Text that commands print: what a launch will do, and how it ended."""

import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from tabulate import tabulate

from jobs.atomic import Damage
from jobs.files.failures import Failure
from jobs.files.store import Store, command_arguments
from jobs.specs.runs import SHARD_STAGES, Manifest
from jobs.specs.units import Stage
from jobs.wording import counted, some
from pipeline.estimate import Device, Forecast, Source
from pipeline.plan import Outcome, Plan
from pipeline.request.config import LaunchConfig
from pipeline.state.activity import Activity
from pipeline.state.files import Observation
from pipeline.state.ledger import ArrayName
from pipeline.state.progress import Pace
from pipeline.state.queue import QueuedTask
from pipeline.state.reasons import advice

_NUM_SHOWN, _NUM_DAMAGES = 5, 20


def plan_table(manifest: Manifest, observed: Observation, plan: Plan, activity: Activity) -> str:
    """Per stage: the total, what is done, and the units to run; then what is already in progress."""
    models = manifest.models.keys()
    is_aggregated = observed.aggregated and observed.is_complete(manifest)
    rows = [("train", "models", len(models), len(models & observed.trained), len(plan.train))]
    for stage in SHARD_STAGES:
        num_done, total = observed.num_images(manifest.of(stage))
        rows.append((stage, "images", total, num_done, len(plan.shards[stage])))
    rows.append(("aggregate", "file", 1, int(is_aggregated), int(plan.aggregate is not None)))
    shown = [row for row in rows if row[2]]  # few grids have attacks
    table = tabulate(shown, headers=["stage", "items", "total", "done", "units to run"], intfmt=",")
    if activity.in_progress:
        table += f"\nin progress: {counted(len(activity.running), 'unit')} running, {len(activity.queued):,} queued"
    return table


_BASES: Mapping[Source, str] = {
    "measured": "as measured in the results folder",
    "published": "at the speed of the published logs",
    "timed": "as timed on this machine",
    "counted": "by multiply-adds, at the speed of the published logs",
}


def cost_text(forecasts: Iterable[Forecast], devices: Mapping[Stage, Device]) -> str:
    """What a plan costs in hours of the devices that will run it, as far as known."""
    hours: dict[tuple[Device, str], dict[Stage, float]] = defaultdict(lambda: defaultdict(float))
    unknown: dict[str, None] = {}
    for kind, source, own in forecasts:
        device = devices[kind.stage]
        if source is not None:
            hours["GPU" if source == "published" else device, _BASES[source]][kind.stage] += own
        else:
            unknown[f"{kind.stage} {kind.architecture} on a {device}"] = None
    lines = [
        f"about {_rounded(sum(by_stage.values()))} {device}-hours "
        f"({', '.join(f'{stage} {_rounded(own)}' for stage, own in by_stage.items())}) {basis}"
        for (device, basis), by_stage in hours.items()
    ]
    if unknown:
        lines.append(f"hours unknown until the first units have run: {', '.join(unknown)}")
    return "\n".join(lines)


def _rounded(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


def waiting_text(plan: Plan, history: Mapping[str, Failure]) -> str:
    """The units that will not be retried automatically, and how to retry them."""
    lines = failure_texts([history[name] for name in plan.waiting if name in history])
    classes = ", ".join(f"retry={failure_class}" for failure_class in sorted(set(plan.waiting.values())))
    lines.append(
        f"{counted(len(plan.waiting), 'unit')} failed twice for the same reason and will not be retried "
        f"automatically, nor will the units that depend on them. Once the cause is fixed, launch with {classes} or "
        "retry=all."
    )
    return "\n".join(lines)


def stuck_reasons(stuck: Sequence[QueuedTask]) -> str:
    """How many tasks SLURM will never run, why, and which options to change."""
    reasons = {task.reason for task in stuck if task.is_stuck}
    names = {(task.reason, ArrayName.parse(task.job_name)) for task in stuck if task.kind == "refused"}
    hints = {advice(reason, name.stage if name else "STAGE") for reason, name in names}
    text = f"stuck: SLURM will never run {counted(len(stuck), 'task')} ({', '.join(sorted(reasons))})"
    return "; ".join([text, *sorted(filter(None, hints))])


def slow_text(slow: Sequence[tuple[str, Pace]]) -> str:
    """Which running units take several times as long as usual."""
    units = some((f"{name} ({pace_text(pace)})" for name, pace in slow), _NUM_SHOWN)
    return f"slow: {counted(len(slow), 'running unit')} without progress for longer than usual: {units}"


def pace_text(pace: Pace) -> str:
    """When a unit last made progress."""
    usual = f", usually every {duration_text(pace.usual_s)}" if pace.is_slow and pace.usual_s is not None else ""
    return f"last progress {duration_text(pace.age_s)} ago{usual}"


def duration_text(seconds: float) -> str:
    """A duration for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def queued_text(config: LaunchConfig, store: Store, outcome: Outcome, elapsed_s: float) -> str:
    """What was submitted to SLURM, and how to follow it."""
    jobs = ", ".join(outcome.jobs) if len(outcome.jobs) <= 6 else f"{outcome.jobs[0]} to {outcome.jobs[-1]}"
    lines = [
        f"submitted {counted(outcome.num_queued, 'unit')} in {counted(len(outcome.jobs), 'array')} "
        f"(jobs {jobs}) after {elapsed_s:.1f} s"
    ]
    if outcome.left:
        lines.append(
            f"{counted(len(outcome.left), 'unit')} not submitted, to stay within the limit on queued jobs "
            f"({outcome.limit}); launch again when the queue has room"
        )
    logs = shlex.quote(str(store.log_path(config.manifest.grid, "x").parent))
    lines += [follow_step(config), f"logs:   tail -F {logs}/train/MODEL.log   or   {logs}/certify/MODEL/RUN/SHARD.log"]
    return "\n".join(lines)


def elsewhere_text(config: LaunchConfig, names: Sequence[str]) -> str:
    """Why nothing runs here: SLURM has the same units."""
    grid = config.manifest.grid
    return (
        f"error: SLURM has {counted(len(names), 'unit')} of grid {grid} queued or running; nothing was started here. "
        "Wait for them, launch with cluster=slurm, or cancel them first: "
        f"python -m pipeline.cancel {command_arguments(grid, config.results)}\n"
        f"{follow_step(config)}"
    )


def limit_text(outcome: Outcome, activity: Activity) -> str:
    """Why nothing was submitted although units are missing."""
    text = (
        f"nothing was submitted: {counted(len(outcome.left), 'unit')} would exceed the limit on queued jobs "
        f"({outcome.limit}); launch again when the queue has room"
    )
    return text if activity.in_progress else f"{text}, or with a higher limit"


def occupied_text(config: LaunchConfig, store: Store) -> str:
    """Why nothing was launched: another launch is running in the results folder."""
    grids = [path.parent.name for path in store.activity_paths()]  # empty while it is still planning
    line = f"error: another launch is running in {store.root}; wait for it (one launch at a time per results folder)"
    return "\n".join([line, *(follow_step(config, grid) for grid in grids)])


def follow_step(config: LaunchConfig, grid: str | None = None) -> str:
    """The command that follows the progress of this grid or another."""
    arguments = command_arguments(grid or config.manifest.grid, config.results)
    return f"follow: python -m pipeline.status {arguments} watch=true"


def outcome_text(outcome: Outcome) -> str:
    """What failed and what to do next."""
    lines = failure_texts(outcome.failures)
    if outcome.problem:
        lines.append(f"error: {outcome.problem}")
        if outcome.num_queued:
            queued = counted(outcome.num_queued, "unit")
            lines.append(f"{queued} queued; launch again for the other {len(outcome.left):,}")
    if outcome.skipped:
        lines.append(f"{counted(len(outcome.skipped), 'unit')} skipped because a dependency failed")
    if outcome.failures:
        lines.append(f"{counted(len(outcome.failures), 'unit')} failed; finished work is kept. Launch again to retry.")
    return "\n".join(lines)


def failure_texts(failures: Sequence[Failure]) -> list[str]:
    """Failures, grouped by reason: the first of each group and a count, since one mistake may fail every unit."""
    groups: dict[tuple[str, str], list[Failure]] = {}
    for failure in failures:
        reason = re.sub(r"\d+", "#", failure.message)  # job, process and node numbers differ
        groups.setdefault((failure.failure_class, reason), []).append(failure)
    texts = []
    for failure, *more in groups.values():
        message = "\n         ".join(failure.message.splitlines())
        where = f", node {failure.host}" if failure.job else ""
        others = f"\n         and {len(more):,} more for the same reason" if more else ""
        texts.append(
            f"failed   {failure.unit} ({failure.failure_class}, attempt {failure.attempt}{where})\n"
            f"         {message}\n         log: {failure.log_path}{others}"
        )
    return texts


def damages_text(damages: Sequence[Damage]) -> str:
    """Damaged files, each with its problem."""
    lines = [f"damaged  {damage.path}\n         {damage.problem}" for damage in damages[:_NUM_DAMAGES]]
    if len(damages) > _NUM_DAMAGES:
        lines.append(f"         and {counted(len(damages) - _NUM_DAMAGES, 'more file')}")
    return "\n".join(lines)


def next_step(config: LaunchConfig) -> str:
    """The command to run on a complete grid."""
    return f"next: python -m analysis.envelope {command_arguments(config.manifest.grid, config.results)}"
