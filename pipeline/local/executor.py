"""Runs units on this machine: in a bounded pool of processes, or one after another in this process."""

import contextlib
from multiprocessing.connection import wait

from jobs.files.failures import Failure, failures_of
from jobs.files.store import Store
from jobs.plugins import loading
from jobs.processes import unit_process, worker
from jobs.processes.unit_process import UnitProcess
from jobs.specs.units import Resources, Unit
from pipeline.local.gpus import choose_gpus, num_gpus_of
from pipeline.local.order import Schedule
from pipeline.local.progress import Progress
from pipeline.plan import Outcome, Plan
from pipeline.state.activity import write_activity

_PRELOAD = [*unit_process.WARM, "configs.entry", "pipeline.request.grid", "pipeline.text"]
_POLL_S = 1.0


def run_in_pool(
    plan: Plan,
    grid: str,
    store: Store,
    resources: Resources,
    *,
    num_workers: int,
    gpus: tuple[str, ...] = (),
    runs_per_gpu: int = 1,
) -> Outcome:
    """Run units in at most ``num_workers`` processes at a time, of which up to ``runs_per_gpu`` share a GPU.

    ``gpus`` are those to distribute, as CUDA_VISIBLE_DEVICES names them; if empty, units see what this process sees.
    """

    def gpus_for(unit: Unit) -> tuple[str, ...] | None:
        in_use = [item.gpus or () for item in running]
        return choose_gpus(gpus, in_use, num_needed=num_gpus_of(unit), runs_per_gpu=runs_per_gpu) if gpus else None

    write_activity(store, grid, running=(), queued=plan.units)  # before the import of torch, which is slow
    unit_process.start_fork_server(_PRELOAD)
    schedule, failures, running = Schedule(plan), list[Failure](), list[UnitProcess]()
    first: Unit | None = None  # in line for a GPU
    with contextlib.closing(Progress(plan.units, store)) as progress:
        try:
            while True:
                while len(running) < num_workers:
                    first = first or schedule.next_ready(running=[item.unit for item in running])
                    own = gpus_for(first) if first else None
                    if first is None or (gpus and own is None):
                        break
                    progress.start(first)
                    running.append(unit_process.start(first, store, resources, store.log_path(grid, first.name), own))
                    first = None
                if not running:
                    break
                queued = [*([first] if first else []), *schedule.left]
                write_activity(store, grid, running=[item.unit for item in running], queued=queued)
                while not (ended := wait([item.sentinel for item in running], timeout=_POLL_S)):
                    progress.tick()
                for item in [item for item in running if item.sentinel in ended]:
                    running.remove(item)
                    failure = item.ended(store)
                    if failure is not None:
                        failures.append(failure)
                        progress.say(f"failed {item.unit.name}: {failure.message.splitlines()[0]}")
                    schedule.finish(item.unit, succeeded=failure is None)
                    progress.finish(item.unit, succeeded=failure is None)
        finally:
            for item in running:
                item.kill()
    store.activity_path(grid).unlink(missing_ok=True)
    return Outcome(failures=tuple(failures), skipped=schedule.left)


def run_here(plan: Plan, grid: str, store: Store, resources: Resources) -> Outcome:
    """Run units in this process, for breakpoints and profilers; they log to its standard error."""
    worker.log_to()
    schedule, failures = Schedule(plan), list[Failure]()
    with contextlib.closing(Progress(plan.units, store)) as progress:
        while (unit := schedule.next_ready(running=())) is not None:
            progress.start(unit)
            write_activity(store, grid, running=[unit], queued=schedule.left)
            num_failed = len(failures)
            try:
                worker.execute(unit, store, resources, store.log_path(grid, unit.name))
            except Exception:  # recorded by the worker; other units continue
                failures.append(failures_of(store, unit)[-1])
            schedule.finish(unit, succeeded=len(failures) == num_failed)
            progress.finish(unit, succeeded=len(failures) == num_failed)
    store.activity_path(grid).unlink(missing_ok=True)
    loading.use(None)  # plug-ins were imported here, and the next launch in this process has another copy
    return Outcome(failures=tuple(failures), skipped=schedule.left)
