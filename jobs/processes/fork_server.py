"""The first import of a fork server: makes it end with its parent, immediately and silently.

Otherwise, after Ctrl-C, it would import torch for seconds (outside Linux it still does), then print a traceback.
"""

import ctypes
import os
import pickle
import signal
import sys
from types import TracebackType

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_INCOMPLETE_REQUEST = (EOFError, BrokenPipeError, pickle.UnpicklingError)


def _print_unless_parent_ended(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not isinstance(error, _INCOMPLETE_REQUEST):
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _print_unless_parent_ended
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() != int(os.environ["FORK_SERVER_PARENT"]):  # the parent ended before the call above
    os._exit(0)
