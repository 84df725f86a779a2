"""Faults on order, for the processes of units: Python imports this first where PYTHONPATH has this folder.

$FAULTS is a JSON file: {"regex of a unit's name": "what to do when it begins"}; each happens once,
except for "slow" and "slower" (or "slower 3"). The pipeline itself knows nothing of this.
"""

import functools
import importlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _hold_memory() -> None:
    held = bytearray(os.urandom(1)) * (4 << 30)  # above any --mem of these tests
    time.sleep(600)  # until SLURM sees it
    del held


def _wait_for_second_copy(name: str) -> None:
    """The first copy waits until the unit was started again elsewhere; then both run to their ends."""
    second = Path(os.environ["FAULTS"] + ".second-" + re.sub(r"\W", "_", name))
    if os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
        second.touch()
        return
    while not second.exists():
        time.sleep(0.1)


def _kill_second() -> None:
    if os.environ["SLURM_PROCID"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)


def _make_raise(module_name: str) -> None:
    def run(*args: object) -> None:
        raise RuntimeError("a fault on order")

    importlib.import_module(module_name).run = run  # type: ignore[attr-defined]


_ACTIONS: dict[str, Callable[[], object]] = {
    "exit": lambda: os._exit(3),
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "kill second": _kill_second,
    "memory": _hold_memory,
    "hang": lambda: time.sleep(600),
}


def _is_first_time(pattern: str) -> bool:
    marker = Path(os.environ["FAULTS"] + "." + re.sub(r"\W", "_", pattern))
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


_SLOW = {"slow": (2.5, 4.0), "slower": (4.5, 6.0)}
"""Seconds that an epoch and an image take longer; "slower 3" is three times as many."""


def _slow_down(epoch_s: float, image_s: float) -> None:
    from jobs import train
    from jobs.files import records

    def slowly(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            time.sleep(seconds)
            return function(*args, **kwargs)

        return wrapper

    train._train_epoch = slowly(train._train_epoch, epoch_s)
    records.image_columns = slowly(records.image_columns, image_s)  # called once for each certified image


def _order() -> None:
    from jobs.processes import worker

    execute = worker.execute

    def execute_with_faults(unit: Any, *args: Any) -> None:
        for pattern, action in json.loads(Path(os.environ["FAULTS"]).read_text()).items():
            if re.search(pattern, unit.name):
                if (pace := action.partition(" ")[0]) in _SLOW:
                    _slow_down(*(seconds * float(action.partition(" ")[2] or 1) for seconds in _SLOW[pace]))
                elif action == "raise":
                    if _is_first_time(pattern):
                        _make_raise(worker.STAGE_MODULES[unit.stage])
                elif action == "two copies":
                    _wait_for_second_copy(unit.name)
                elif action == "kill second" or _is_first_time(pattern):
                    _ACTIONS[action]()
        execute(unit, *args)

    worker.execute = execute_with_faults  # type: ignore[assignment]


if "FAULTS" in os.environ and any("forkserver" in argument for argument in sys.orig_argv):
    _order()
