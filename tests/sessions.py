"""Commands as a user starts them, in a session of their own so that their processes can be counted."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

PATIENCE_S = 600.0
"""Only a process that hangs takes so long, whatever else the machine does."""


@contextlib.contextmanager
def started(command: Sequence[str], *, hold_back_ctrl_c: bool = False) -> Iterator[subprocess.Popen[str]]:
    """``python -m command``, killed at the end if it still runs.

    Args:
        command: The module and its arguments.
        hold_back_ctrl_c: Ctrl-C waits until the process listens, not only while Python itself starts.
    """

    def take_signals() -> None:
        # A shell's background jobs, and all that they start, ignore Ctrl-C.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if hold_back_ctrl_c:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])

    with subprocess.Popen(
        [sys.executable, "-m", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=take_signals,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def cpu_seconds(process: subprocess.Popen[str]) -> float:
    """What the process itself has used so far, without its children."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def await_empty(session: int) -> None:
    """Wait until no process of a session is left."""
    deadline = time.monotonic() + PATIENCE_S
    while not _is_empty(session):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _is_empty(session: int) -> bool:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended while we looked
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                return False
    return True
