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
    """How the units of a plan stand when an executor returns.

    Attributes:
        failures: One for each unit that failed.
        held_back: Units that were not started because one they need failed.
        num_queued: Units handed to a scheduler, which goes on by itself.
        jobs: What the scheduler calls them.
        left: Units that the scheduler does not take for now; the next launch hands them over.
        limit: Which limit it is that they are beyond; None where nothing is left for that reason.
        problem: Why nothing, or not everything, could be handed over.
    """

    failures: tuple[Failure, ...]
    held_back: tuple[Unit, ...]
    num_queued: int = 0
    jobs: tuple[str, ...] = ()
    left: tuple[Unit, ...] = ()
    limit: str | None = None
    problem: str | None = None


class Executor(Protocol):
    """Runs or submits the units of a plan.

    A unit that fails takes down nothing but what needs it: siblings go on. Failures are written
    to the store before they are returned.
    """

    def run(self, plan: Plan, *, grid: str, store: Store, resources: Resources) -> Outcome:
        """Run every unit of the plan that can be run."""
        ...

    def preview(self, plan: Plan, *, grid: str, store: Store) -> str:
        """What a dry run shows of how the units would run, such as the text for sbatch; changes nothing."""
        ...
