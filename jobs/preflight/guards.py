"""What plug-ins may not do, turned into errors at the line that does it."""

from __future__ import annotations

import contextlib
import functools
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch

from jobs.plugins import loading

_MAX_LINES = 1000
_NEW_PROCESS = ("os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.system", "subprocess.Popen")
_SEEDS = ((torch, "manual_seed"), (torch, "seed"), (torch, "set_rng_state"), (random, "seed"), (np.random, "seed"))

_is_guarding = False


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """While this lasts, a plug-in that forks, sets the global random state or floods the output raises."""
    global _is_guarding
    _hook_once()
    with contextlib.ExitStack() as stack:
        for module, name in _SEEDS:
            stack.enter_context(mock.patch.object(module, name, _refusing(getattr(module, name))))
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
        raise RuntimeError("a plug-in must not start processes: a training may hold a GPU and locks of its own")


def _refusing(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        if loading.place_here() is not None:
            raise RuntimeError(f"{function.__name__} sets the global random state; use the generator given")
        return function(*arguments, **options)

    return call
