"""Tables for the terminal: what a launch is going to do, and how it ended."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from tabulate import tabulate

from jobs.failures import Failure
from jobs.indices import missing_from
from jobs.manifest import Manifest, ShardedRun
from pipeline.config import LaunchConfig
from pipeline.cost import gpu_hours
from pipeline.executor import Outcome
from pipeline.observe import Observation
from pipeline.plan import Plan


def plan_table(manifest: Manifest, observed: Observation, plan: Plan) -> str:
    """Per stage: how much there is, how much is done, and what will run."""
    models = {run.train.key for run in manifest.runs}
    rows = [
        ("train", "models", len(models), len(models) - len(plan.train), len(plan.train)),
        ("certify", "images", *_images(manifest.runs, observed), len(plan.certify)),
        ("attack", "images", *_images(manifest.attacks, observed), len(plan.attack)),
        ("aggregate", "file", 1, int(plan.aggregate is None), int(plan.aggregate is not None)),
    ]
    shown = [row for row in rows if row[2]]  # few grids have attacks
    return tabulate(shown, headers=["stage", "of", "total", "done", "units to run"], intfmt=",")


def _images(runs: Sequence[ShardedRun], observed: Observation) -> tuple[int, int]:
    """Images in all, and done."""
    total = sum(len(run.indices) for run in runs)
    return total, total - sum(len(missing_from(run.indices, observed.finished(run))) for run in runs)


def cost_text(plan: Plan) -> str:
    """What a plan costs in GPU-hours, for the architectures whose speed is known."""
    estimate = gpu_hours(plan)
    if not estimate.hours:
        return ""
    parts = ", ".join(f"{stage} {_rounded(hours)}" for stage, hours in estimate.hours.items())
    text = f"about {_rounded(sum(estimate.hours.values()))} GPU-hours ({parts}) at the speed of the published logs"
    unknown = ", ".join(sorted(estimate.unknown))
    return f"{text}; unknown: {unknown}" if unknown else text


def _rounded(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}"


def outcome_text(outcome: Outcome) -> str:
    """What failed and what to do next."""
    lines = [failure_text(failure) for failure in outcome.failures]
    if outcome.held_back:
        lines.append(f"held back, since something they need failed: {len(outcome.held_back)} units")
    if outcome.failures:
        lines.append(f"{len(outcome.failures)} failed; all else is kept. Launch again to do what is missing.")
    return "\n".join(lines)


def failure_text(failure: Failure) -> str:
    """One failure in two lines: what, and where to read on."""
    message = "\n         ".join(failure.message.splitlines())
    return (
        f"failed   {failure.unit} ({failure.failure_class}, attempt {failure.attempt})\n"
        f"         {message}\n         log: {failure.log_path}"
    )


def next_step(config: LaunchConfig) -> str:
    """The command that makes something of a complete grid."""
    command = f"python -m analysis.envelope grid={config.manifest.grid}"
    if str(config.results) != "results":
        command += f" results={shlex.quote(str(config.results))}"
    return f"next: {command}"
