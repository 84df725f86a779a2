"""Ctrl-C: one line on standard error and exit code 130, at any moment."""

import contextlib
import os
import signal
import sys
from typing import NoReturn

EXIT_INTERRUPTED = 130
MESSAGE = "interrupted; run the same command again to resume"


def listen() -> None:
    """From now on, Ctrl-C ends this process immediately.

    A KeyboardInterrupt could be printed, replaced or lost by third-party code that it interrupts, and no file needs
    cleaning up: every command survives kill -9 at any moment. A process that ignores Ctrl-C, such as a shell's
    background job, or handles it, such as a debugger, keeps doing so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # our parent may have blocked it until now


def finish() -> None:
    """From now on, ignore Ctrl-C: the command is over, and while Python ends it would end the process by signal."""
    if signal.getsignal(signal.SIGINT) is leave:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def leave(*_: object) -> NoReturn:
    """Print that this process was interrupted, and end it. Only temporary folders are removed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line_break = "\n" if os.isatty(2) else ""  # after the terminal's ^C, or a progress bar
    with contextlib.suppress(OSError):
        os.write(2, f"{line_break}{MESSAGE}\n".encode())
    if atomic := sys.modules.get("jobs.atomic"):  # which may just be imported
        getattr(atomic, "remove_temporary_folders", lambda: None)()
    os._exit(EXIT_INTERRUPTED)
