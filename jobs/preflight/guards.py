"""Turns actions that are forbidden to plug-ins into errors at the line of the action."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any
from unittest import mock

import numpy as np
import torch

from jobs.plugins import loading, settings

_MAX_LINES = 1000
_NEW_PROCESS = ("os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.system", "subprocess.Popen")
_SEEDS: dict[Any, tuple[str, ...]] = {
    torch: ("manual_seed", "seed", "set_rng_state"),
    torch.cuda: ("manual_seed", "manual_seed_all"),
    random: ("seed", "setstate"),
    np.random: ("seed", "set_state"),
}
_SETTERS: dict[Any, tuple[str, ...]] = {
    # set_grad_enabled may be a block's, after which it is put back.
    torch: (
        *(name for name in settings.SETTERS_OF_TORCH.values() if name != "set_grad_enabled"),
        "set_num_interop_threads",
        "set_default_device",
        "set_flush_denormal",
        "use_deterministic_algorithms",
    ),
    os: ("chdir",),
    signal: ("signal", "setitimer", "alarm"),
}

PROCESS_WIDE = "for the whole process, which other code relies on; do not change it"

_is_guarding = False


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """In this block, a plug-in that forks, changes global settings or floods the output raises an error."""
    global _is_guarding
    _hook_once()
    with contextlib.ExitStack() as stack:
        for problem, functions in (
            ("sets the global random state; use the generator given", _SEEDS),
            (f"changes a setting {PROCESS_WIDE}", _SETTERS),
        ):
            for module, name in ((module, name) for module, names in functions.items() for name in names):
                refusing = _refusing(getattr(module, name), f"{name} {problem}")
                stack.enter_context(mock.patch.object(module, name, refusing))
        stack.enter_context(contextlib.redirect_stdout(loading.LimitedOutput(_MAX_LINES, "four steps")))
        _is_guarding = True
        try:
            yield
        finally:
            _is_guarding = False


@functools.cache
def _hook_once() -> None:
    sys.addaudithook(_hook)  # which stays for the life of the process


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _is_guarding and event in _NEW_PROCESS and loading.place_here() is not None:
        raise RuntimeError("a plug-in must not start processes: a training may hold a GPU and locks")


def _refusing(function: Callable[..., Any], problem: str) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        if _is_called_by_plugin(sys._getframe(1)):
            raise RuntimeError(problem)
        return function(*arguments, **options)

    return call


def _is_called_by_plugin(frame: FrameType | None) -> bool:
    """Whether a plug-in makes this call, directly or through a library; not torch itself, or a library on import."""
    while frame is not None:
        if loading.is_own(frame.f_code.co_filename):
            return True
        if frame.f_globals.get("__name__", "").partition(".")[0] in ("importlib", "jobs", "torch"):
            return False  # they restore what they set
        frame = frame.f_back
    return False
