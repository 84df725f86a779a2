"""Turns actions that are forbidden to plug-ins into errors at the line of the action."""

import contextlib
import functools
import io
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TextIO
from unittest import mock

from jobs.plugins import loading, settings

PROCESS_WIDE = "for the whole process, which other code relies on; do not change it"

_TORCH_SETTERS = " ".join(f"torch.{name}" for name in settings.SETTERS_OF_TORCH.values() if name != "set_grad_enabled")
_REFUSED = {
    "sets the global random state; use the generator given": (
        "torch.manual_seed torch.seed torch.set_rng_state torch.cuda.manual_seed torch.cuda.manual_seed_all "
        "random.seed random.setstate numpy.random.seed numpy.random.set_state"
    ),
    # Not set_grad_enabled, which may be for a block that restores it.
    f"changes a setting {PROCESS_WIDE}": (
        f"{_TORCH_SETTERS} torch.set_num_interop_threads torch.set_default_device torch.set_flush_denormal "
        "torch.use_deterministic_algorithms os.chdir signal.signal signal.setitimer signal.alarm"
    ),
}
"""Functions that no plug-in may call, by the problem with them."""

_NEW_PROCESS = ("os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.system", "subprocess.Popen")
_is_guarding = False


@contextlib.contextmanager
def guarded(
    max_lines: int, during: str, *, stdout: TextIO | None = None, stderr: TextIO | None = None
) -> Iterator[None]:
    """In this block, a plug-in that starts processes, changes global settings or floods the output raises an error.

    It may print ``max_lines`` ``during`` something, which ends the message. They go to the streams; None is nowhere.
    """
    global _is_guarding
    _hook_once()
    with contextlib.ExitStack() as stack:
        for problem, names in _REFUSED.items():
            for module, _, name in (full.rpartition(".") for full in names.split()):
                if owner := sys.modules.get(module):
                    refusing = _refusing(getattr(owner, name), f"{name} {problem}")
                    stack.enter_context(mock.patch.object(owner, name, refusing))
        stack.enter_context(contextlib.redirect_stdout(_LimitedOutput(max_lines, during, stdout)))
        stack.enter_context(contextlib.redirect_stderr(_LimitedOutput(max_lines, during, stderr)))
        _is_guarding = True
        try:
            yield
        finally:
            _is_guarding = False


@functools.cache
def _hook_once() -> None:
    def hook(event: str, _: tuple[Any, ...]) -> None:
        if _is_guarding and event in _NEW_PROCESS and _is_called_by_plugin(sys._getframe(1)):
            raise RuntimeError("a plug-in must not start processes: a training may hold a GPU and locks")

    sys.addaudithook(hook)  # which stays for the life of the process


def _refusing(function: Callable[..., Any], problem: str) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        if _is_called_by_plugin(sys._getframe(1)):
            raise RuntimeError(problem)
        return function(*arguments, **options)

    return call


def _is_called_by_plugin(frame: FrameType | None) -> bool:
    """Whether a plug-in makes this call, directly or through a library; not torch itself, or a library on import."""
    while frame is not None:
        if loading.is_own(frame.f_code.co_filename):
            return True
        if frame.f_globals.get("__name__", "").partition(".")[0] in ("importlib", "jobs", "torch"):
            return False  # they restore what they set
        frame = frame.f_back
    return False


class _LimitedOutput(io.StringIO):
    """Forwards lines to a stream, if any. Beyond the limit, printing by a plug-in raises an error."""

    def __init__(self, max_lines: int, during: str, target: TextIO | None = None) -> None:
        super().__init__()
        self._left, self._target = max_lines, target
        self._problem = f"prints more than {max_lines:,} lines in {during}; a grid of trainings would fill the disk"

    def write(self, text: str) -> int:
        self._left -= text.count("\n")
        if self._left < 0 and loading.place_here() is not None:
            raise RuntimeError(self._problem)
        return len(text) if self._target is None else self._target.write(text)

    def flush(self) -> None:
        if self._target is not None:
            self._target.flush()
