"""Requests to stop: soon, after saving, when a cluster sends a warning; and at once, when the parent ends.

Work calls ``stop_if_asked`` at points where its state is consistent.
"""

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
"""USR2 comes before preemption and before a time limit, TERM with a cancellation."""

# No threading.Event: a second signal inside its set() would wait for the lock that the first one holds.
_asked = False


class Interrupted(BaseException):
    """Work stopped on request; it resumes from this point when it runs again."""


def listen() -> None:
    """From now on, treat this process's signals as requests, including those blocked until now."""
    for number in SIGNALS:
        signal.signal(number, _ask)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextlib.contextmanager
def blocked_in_children(signals: Collection[signal.Signals]) -> Iterator[None]:
    """Processes that are started in this block begin with these signals blocked."""
    resource_tracker.ensure_running()  # first, since starting it unblocks signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def was_asked() -> bool:
    return _asked


def stop_if_asked() -> None:
    if _asked:
        raise Interrupted


@contextlib.contextmanager
def exits_raised() -> Iterator[None]:
    """In this block, an exit of the process, such as a plug-in's ``sys.exit``, becomes an error."""
    try:
        yield
    except (Exception, Interrupted):
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            raise  # Ctrl-C, maybe; where that is ignored, it was not
        raise RuntimeError(f"ended by {error!r}").with_traceback(error.__traceback__) from None


def end_with_parent() -> None:
    """From now on, end this process when its parent ends, for any reason."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            wait([parent.sentinel])
            remove_temporary_folders()
            os._exit(75)

    threading.Thread(target=watch, daemon=True).start()


def _ask(*_: object) -> None:
    global _asked
    _asked = True
