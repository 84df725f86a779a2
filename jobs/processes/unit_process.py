"""Runs one unit in one process, which ends when its parent does, and records its end whatever the cause.

Processes come from a fork server that has imported torch once, so that starting one takes milliseconds.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing import forkserver
from pathlib import Path

from jobs.errors import FailedElsewhereError
from jobs.files.failures import Failure, FailureClass, Place, failure_now, failures_of, record_death
from jobs.files.store import Store
from jobs.processes import interrupt, worker
from jobs.specs.units import Resources, Stage, Unit

WARM = (*worker.STAGE_MODULES.values(), "torch._dynamo")
"""Modules that units import; the first optimizer of a process imports torch._dynamo, which takes seconds."""

_EXIT_INTERRUPTED, _EXIT_FAILED_ELSEWHERE, _EXIT_DONE = 76, 77, 78  # 0 may be anyone's


def modules_for(stage: Stage, num_units: int) -> list[str]:
    """The modules to import for units of one stage: only several trainings are worth the import of torch._dynamo."""
    return [worker.STAGE_MODULES[stage], *(["torch._dynamo"] if stage == "train" and num_units > 1 else [])]


def start_fork_server(preload: Sequence[str]) -> None:
    """Import modules, including torch, before the first unit.

    The server is born with the signals of ``jobs.processes.interrupt`` blocked, and so are its children until
    they listen: a cluster that signals all processes of a job ends none of them by it.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(["jobs.processes.fork_server", *preload])
    os.environ["FORK_SERVER_PARENT"] = str(os.getpid())
    with interrupt.blocked_in_children({*interrupt.SIGNALS, signal.SIGINT}):
        forkserver.ensure_running()


@dataclass(frozen=True, kw_only=True, eq=False)
class UnitProcess:
    unit: Unit
    process: multiprocessing.process.BaseProcess
    log_path: Path
    num_failures_before: int
    gpus: tuple[str, ...] | None = None

    @property
    def sentinel(self) -> int:
        """For ``multiprocessing.connection.wait``: ready when the process has ended."""
        return self.process.sentinel

    @property
    def was_interrupted(self) -> bool:
        """Whether it has stopped on request, after saving its work."""
        return self.process.exitcode == _EXIT_INTERRUPTED

    def ask_to_stop(self) -> None:
        if self.process.pid is not None and self.process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGUSR2)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def ended(self, store: Store) -> Failure | None:
        """Reap the process; returns its failure, if it failed, and records it unless the process did."""
        self.process.join()
        if self.process.exitcode == _EXIT_DONE:
            return None
        recorded = failures_of(store, self.unit)
        if len(recorded) > self.num_failures_before:
            return recorded[-1]
        if self.process.exitcode == _EXIT_FAILED_ELSEWHERE:  # a record from another node may not be visible here yet
            message = "another task of this training failed first"
            return failure_now(store, self.unit, "unknown", message, self.log_path)
        failure_class, message = _death(self.process.exitcode or 0)
        gpus = {} if self.gpus is None else {"gpus": ",".join(self.gpus)}
        place = replace(Place.here(), **gpus)
        return record_death(store, self.unit, failure_class, message, self.log_path, place=place)


def interrupt_all(items: Sequence[UnitProcess], patience_s: float) -> None:
    """Ask all of them to save and stop; kill those that have not after ``patience_s`` seconds."""
    for item in items:
        item.ask_to_stop()
    deadline = time.monotonic() + patience_s
    for item in items:
        item.process.join(max(0.0, deadline - time.monotonic()))
    for item in items:
        item.kill()


def start(
    unit: Unit, store: Store, resources: Resources, log_path: Path, gpus: tuple[str, ...] | None = None
) -> UnitProcess:
    """Start a unit; its output is added to ``log_path``. ``start_fork_server`` comes before it.

    It sees the ``gpus`` that CUDA_VISIBLE_DEVICES would name so; None: those that this process sees.
    """
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=_run_unit, args=(unit, store, resources, log_path, gpus), name=unit.name)
    num_failures = len(failures_of(store, unit))
    process.start()
    return UnitProcess(unit=unit, process=process, log_path=log_path, num_failures_before=num_failures, gpus=gpus)


def _run_unit(unit: Unit, store: Store, resources: Resources, log_path: Path, gpus: tuple[str, ...] | None) -> None:
    if gpus is not None:  # torch may be imported already, but reads this only when it first uses a GPU
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides whether to end us
    interrupt.end_with_parent()
    interrupt.listen()
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab", buffering=0) as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    worker.log_to(sys.stderr)
    try:
        worker.execute(unit, store, resources, log_path)
        sys.exit(_EXIT_DONE)
    except interrupt.Interrupted:
        sys.exit(_EXIT_INTERRUPTED)
    except FailedElsewhereError:
        sys.exit(_EXIT_FAILED_ELSEWHERE)
    except Exception:  # recorded by the worker
        sys.exit(1)


def _death(exit_code: int) -> tuple[FailureClass, str]:
    if exit_code == _EXIT_INTERRUPTED:
        return "preempted", "the process received a signal to stop, and saved its work"
    if exit_code >= 0:
        but = "" if exit_code else ", but its unit is not done"
        return "unknown", f"the process exited with code {exit_code}{but}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    if name == "SIGKILL":
        return "unknown", "the process was killed (SIGKILL): out of memory, or killed by hand"
    is_bug = name in ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE")
    return "bug" if is_bug else "unknown", f"the process died of {name}"
