"""The one interface behind which units run: here, in a pool of processes, or on a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from jobs.files.failures import Failure
from jobs.files.store import Store
from jobs.specs.units import Resources, Unit
from pipeline.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The state of a plan's units when an executor returns.

    Attributes:
        failures: One for each unit that failed.
        skipped: Units that were not started because a dependency failed.
        num_queued: Units submitted to a scheduler, which runs them after the launch returns.
        jobs: The scheduler's ids for them.
        left: Units not submitted yet; the next launch submits them.
        limit: The limit that they would exceed; None if none was in the way.
        problem: Why not everything could be submitted.
    """

    failures: tuple[Failure, ...]
    skipped: tuple[Unit, ...]
    num_queued: int = 0
    jobs: tuple[str, ...] = ()
    left: tuple[Unit, ...] = ()
    limit: str | None = None
    problem: str | None = None


class Executor(Protocol):
    """Runs or submits the units of a plan.

    A unit that fails affects only those that depend on it; others continue. Failures are written
    to the store before they are returned.
    """

    def run(self, plan: Plan, *, grid: str, store: Store, resources: Resources) -> Outcome:
        """Run every unit of the plan that can be run."""
        ...
