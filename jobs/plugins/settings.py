"""Settings that all code of a process shares: what a plug-in changes of them is put back."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

SETTERS_OF_TORCH = {
    "get_num_threads": "set_num_threads",
    "get_default_dtype": "set_default_dtype",
    "is_grad_enabled": "set_grad_enabled",
    "get_float32_matmul_precision": "set_float32_matmul_precision",
    "get_deterministic_debug_mode": "set_deterministic_debug_mode",
}
_OF_CUDNN = ("benchmark", "deterministic", "allow_tf32")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGALRM, signal.SIGCHLD)


class _Setting(NamedTuple):
    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


@contextlib.contextmanager
def kept() -> Iterator[list[str]]:
    """Put back, after this block, what its code has changed of the process's settings.

    Yields:
        A list, which names the settings of torch that were changed once the block has ended.
    """
    before = [(setting, setting.read()) for setting in _settings()]
    changed: list[str] = []
    try:
        yield changed
    finally:
        for setting, value in before:
            if setting.read() != value:
                setting.write(value)
                changed += [setting.name] if setting.name.startswith("torch.") else []


@contextlib.contextmanager
def with_fixed_randomness() -> Iterator[None]:
    """Whatever this block draws from the global random generators is the same each time; their states are put back."""
    torch = sys.modules.get("torch")
    states = random.getstate(), np.random.get_state(), torch.get_rng_state() if torch else None
    random.seed(0)
    np.random.seed(0)
    if torch:
        torch.default_generator.manual_seed(0)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        if torch:
            torch.set_rng_state(states[2])


def _settings() -> Iterator[_Setting]:
    yield _Setting("os.environ", lambda: dict(os.environ), _set_environment)
    yield _Setting("os.getcwd", os.getcwd, os.chdir)
    yield _Setting("signal.getsignal", _handlers, _set_handlers)
    yield _Setting("warnings.filters", lambda: [*warnings.filters], _set_filters)
    yield _Setting("numpy.geterr", np.geterr, lambda kinds: np.seterr(**kinds))
    yield _Setting("logging.root", _logging, _set_logging)
    if torch := sys.modules.get("torch"):  # not imported here: most of what loads no plug-in needs none
        for getter, setter in SETTERS_OF_TORCH.items():
            yield _Setting(f"torch.{getter}", _readable(getattr(torch, getter)), getattr(torch, setter))
        for name in _OF_CUDNN:
            cudnn = torch.backends.cudnn
            yield _Setting(f"torch.backends.cudnn.{name}", partial(getattr, cudnn, name), partial(setattr, cudnn, name))


def _readable(getter: Callable[[], Any]) -> Callable[[], Any]:
    def read() -> Any:
        try:
            return getter()
        except RuntimeError:  # precisions of matrix products that were set in two ways cannot be read
            return None

    return read


def _set_environment(values: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(values)


def _handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in _SIGNALS}


def _set_handlers(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None and signal.getsignal(number) != handler:  # None: not set by Python
            signal.signal(number, handler)


def _set_filters(filters: list[Any]) -> None:
    warnings.filters[:] = filters  # type: ignore[index]


def _logging() -> tuple[int, int, list[logging.Handler]]:
    return logging.root.level, logging.root.manager.disable, [*logging.root.handlers]


def _set_logging(values: tuple[int, int, list[logging.Handler]]) -> None:
    logging.root.level, logging.root.manager.disable, logging.root.handlers = values
