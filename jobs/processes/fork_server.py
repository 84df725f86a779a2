"""The first import of a fork server: from then on it ends with its parent, at once and without a word.

Without it, a server goes on importing torch for seconds when Ctrl-C has ended its parent (on other
systems than Linux it still does), and prints a traceback when it finds the parent gone.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
from types import TracebackType

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _print_unless_parent_ended(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not isinstance(error, EOFError | BrokenPipeError | pickle.UnpicklingError):  # what to run came in part only
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _print_unless_parent_ended
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() != int(os.environ["FORK_SERVER_PARENT"]):  # it ended before that
    os._exit(0)
