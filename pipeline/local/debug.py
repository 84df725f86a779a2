"""Units one after the other in this very process, for breakpoints and profilers."""

from __future__ import annotations

from jobs.files.failures import Failure, failures_of
from jobs.files.store import Store
from jobs.plugins import loading
from jobs.processes import worker
from jobs.specs.units import Resources
from pipeline.executor import Outcome
from pipeline.local.order import Schedule
from pipeline.local.progress import Progress
from pipeline.plan import Plan
from pipeline.state.activity import write_activity


class DebugExecutor:
    """Runs units in-process; they log to this process's standard error."""

    def run(self, plan: Plan, *, grid: str, store: Store, resources: Resources) -> Outcome:
        worker.log_to()
        schedule, failures = Schedule(plan), list[Failure]()
        with Progress(plan.units, store) as progress:
            while (unit := schedule.next_ready(running=())) is not None:
                progress.start(unit)
                write_activity(store, grid, running=[unit], queued=schedule.left)
                log_path = store.log_path(grid, unit.name)
                try:
                    worker.execute(unit, store, resources, log_path)
                except Exception:  # recorded by the worker; other units continue
                    failures.append(failures_of(store, unit)[-1])
                    succeeded = False
                else:
                    succeeded = True
                schedule.finish(unit, succeeded=succeeded)
                progress.finish(unit, succeeded=succeeded)
        store.activity_path(grid).unlink(missing_ok=True)
        loading.use(None)  # plug-ins were imported here, and the next launch in this process has a copy of its own
        return Outcome(failures=tuple(failures), skipped=schedule.left)

    def preview(self, plan: Plan, *, grid: str, store: Store) -> str:
        return ""
