"""Requests to stop: soon, saving what there is, as a cluster asks before it kills; and at once, with the parent.

Work asks ``stop_if_asked`` at points where nothing is half done.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Collection, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import wait

from jobs.atomic import remove_temporary_folders

SIGNALS = (signal.SIGUSR2, signal.SIGTERM)
"""USR2 comes ahead of preemption and of a time limit, TERM with a cancellation."""

_EXIT_ORPHANED = 75

# No threading.Event: a second signal inside its set() would wait for the lock that the first one holds.
_asked = False


class Interrupted(BaseException):
    """Work stopped on request; it resumes from there when it runs again."""


def listen() -> None:
    """From now on, treat this process's signals as requests, including those blocked until now."""
    for number in SIGNALS:
        signal.signal(number, _ask)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextlib.contextmanager
def blocked_in_children(signals: Collection[signal.Signals]) -> Iterator[None]:
    """Processes that are started in this block are born with signals blocked."""
    resource_tracker.ensure_running()  # first, since starting it unblocks signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def was_asked() -> bool:
    """Whether this process was asked to stop."""
    return _asked


def stop_if_asked() -> None:
    """Raise Interrupted if this process was asked to stop."""
    if _asked:
        raise Interrupted


@contextlib.contextmanager
def exits_raised() -> Iterator[None]:
    """What would end this process with a success, or silently, as a plug-in's ``sys.exit``, is an error like others."""
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            raise  # Ctrl-C, maybe; where that is ignored, it was not
        raise RuntimeError(f"ended by {error!r}").with_traceback(error.__traceback__) from None


def end_with_parent() -> None:
    """From now on, end this process when the one that started it ends, however that does."""
    threading.Thread(target=_await_parent_s_end, daemon=True).start()


def _await_parent_s_end() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        remove_temporary_folders()
        os._exit(_EXIT_ORPHANED)


def _ask(*_: object) -> None:
    global _asked
    _asked = True
