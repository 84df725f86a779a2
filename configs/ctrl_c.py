"""Ctrl-C: one line on standard error and exit code 130, whatever this process is doing."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import NoReturn

EXIT_INTERRUPTED = 130
MESSAGE = "interrupted; run the same command again to resume"


def listen() -> None:
    """From now on Ctrl-C ends this process at once.

    No KeyboardInterrupt is raised: where other people's code is interrupted (an import, a configuration
    being composed), the exception may be printed, replaced by another, or lost. Every command survives
    kill -9 at any moment, so there is nothing that would have to be cleaned up.

    A process that ignores Ctrl-C, as a shell's background jobs do, or handles it, as debuggers do, goes on so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # who started us may have held it back so far


def leave(*_: object) -> NoReturn:
    """Say that this process was interrupted, and end it without cleaning up."""
    line_break = "\n" if os.isatty(2) else ""  # after the terminal's ^C, or a progress bar
    with contextlib.suppress(OSError):
        os.write(2, f"{line_break}{MESSAGE}\n".encode())
    os._exit(EXIT_INTERRUPTED)
