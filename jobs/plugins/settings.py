"""Settings that all code of a process shares: a plug-in's changes to them are undone."""

import contextlib
import copy
import logging
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

SETTERS_OF_TORCH = {
    "get_num_threads": "set_num_threads",
    "get_default_dtype": "set_default_dtype",
    "is_grad_enabled": "set_grad_enabled",
    "get_float32_matmul_precision": "set_float32_matmul_precision",
    "get_deterministic_debug_mode": "set_deterministic_debug_mode",
}


@contextlib.contextmanager
def kept() -> Iterator[list[str]]:
    """Undo this block's changes to the process's settings; afterwards, the list names those of torch that changed."""
    before = [(name, read, write, _value(read)) for name, read, write in _settings()]
    changed: list[str] = []
    try:
        yield changed
    finally:
        for name, read, write, value in before:
            if _value(read) != value:
                write(value)
                changed += [name] if name.startswith("torch.") else []


@contextlib.contextmanager
def with_fixed_randomness() -> Iterator[None]:
    """The global random generators begin this block in the same state every time; their own states are restored."""
    torch = sys.modules.get("torch")
    own, numpys, torchs = random.getstate(), np.random.get_state(), torch.get_rng_state() if torch else None
    random.seed(0)
    np.random.seed(0)
    if torch:
        torch.default_generator.manual_seed(0)
    try:
        yield
    finally:
        random.setstate(own)
        np.random.set_state(numpys)
        if torch:
            torch.set_rng_state(torchs)


def _settings() -> Iterator[tuple[str, Callable[[], Any], Callable[[Any], object]]]:
    """The name of each setting, and what reads and writes it."""
    yield "os.environ", os.environ.copy, _set_environment
    yield "os.getcwd", os.getcwd, os.chdir
    yield "numpy.geterr", np.geterr, lambda kinds: np.seterr(**kinds)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGALRM, signal.SIGCHLD):
        yield number.name, partial(signal.getsignal, number), partial(signal.signal, number)
    attributes: list[tuple[Any, str, str]] = [(warnings, "filters", "warnings"), (logging.root, "level", "logging")]
    attributes += [(logging.root, "handlers", "logging"), (logging.root.manager, "disable", "logging")]
    if torch := sys.modules.get("torch"):  # not imported here: most of what loads no plug-in needs none
        for getter, setter in SETTERS_OF_TORCH.items():
            yield f"torch.{getter}", getattr(torch, getter), getattr(torch, setter)
        for name in ("benchmark", "deterministic", "allow_tf32"):
            attributes.append((torch.backends.cudnn, name, "torch.backends.cudnn"))
    for owner, name, where in attributes:
        yield f"{where}.{name}", partial(getattr, owner, name), partial(setattr, owner, name)


def _value(read: Callable[[], Any]) -> Any:
    try:
        return copy.copy(read())
    except RuntimeError:  # precisions of matrix products that were set in two ways cannot be read
        return None


def _set_environment(values: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(values)
