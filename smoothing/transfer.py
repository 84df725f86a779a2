"""Transfers to a device that do not make the host wait."""

from collections import deque

import torch
from torch import Tensor


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Host values on a device; for a GPU from pinned memory, because other copies make the host wait."""
    if device.type == "cuda" and not values.is_pinned():
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


_JUDGED_AFTER = 20  # pieces of work


class Pace:
    """Keeps the host from getting far ahead of a GPU: pinned memory is not freed before its copy is done.

    Otherwise a host that is faster than the GPU would hold all the noise of an image at once. Does
    nothing on other devices.
    """

    def __init__(self, device: torch.device, max_ahead: int) -> None:
        """Allow at most ``max_ahead`` pieces of work to be waiting for the device or running on it."""
        self._is_needed, self._max_ahead = device.type == "cuda", max_ahead
        self._submitted: deque[torch.cuda.Event] = deque()
        self._num_ready = self._num_late = 0

    def await_room(self) -> None:
        """Wait until another piece of work may be submitted to the device."""
        while len(self._submitted) >= self._max_ahead:
            self._submitted.popleft().synchronize()

    def starves(self) -> bool:
        """Record that the next piece of work is ready; says whether the device usually has to wait for it.

        True at most once: if the device had run out of work before most of the first pieces.
        """
        if not self._submitted:
            return False
        self._num_ready += 1
        self._num_late += self._submitted[-1].query()  # type: ignore[no-untyped-call]
        return self._num_ready == _JUDGED_AFTER and 2 * self._num_late > self._num_ready

    def mark(self) -> None:
        """Record that a piece of work has been submitted to the device."""
        if self._is_needed:
            # Blocking, not spinning: the CPU is needed for drawing noise.
            event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            event.record()
            self._submitted.append(event)
