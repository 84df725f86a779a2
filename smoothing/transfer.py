"""Values on their way to a device, without making the host wait for it."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Host values on a device; to a GPU from pinned memory, since the host waits for a copy from any other."""
    if device.type == "cuda" and not values.is_pinned():
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


_JUDGED_AFTER = 20  # pieces of work


class Pace:
    """Keeps the host from getting far ahead of a GPU: pinned memory is not free before its copy is done.

    Without it a host that is the faster one would hold all the noise of an image at once. On other
    devices it does nothing.
    """

    def __init__(self, device: torch.device, max_ahead: int) -> None:
        """At most ``max_ahead`` pieces of work are to be waiting for the device or under way on it."""
        self._is_needed, self._max_ahead = device.type == "cuda", max_ahead
        self._under_way: deque[torch.cuda.Event] = deque()
        self._num_ready = self._num_late = 0

    def await_room(self) -> None:
        """Return when one more piece of work may be given to the device."""
        while len(self._under_way) >= self._max_ahead:
            self._under_way.popleft().synchronize()

    def starves(self) -> bool:
        """Note that the host has the next piece of work ready; whether that is too late as a rule.

        True once at most: when the device had run out of work before most of the first pieces.
        """
        if not self._under_way:
            return False
        self._num_ready += 1
        self._num_late += self._under_way[-1].query()  # type: ignore[no-untyped-call]
        return self._num_ready == _JUDGED_AFTER and 2 * self._num_late > self._num_ready

    def mark(self) -> None:
        """Say that a piece of work has been given to the device."""
        if self._is_needed:
            # Not by spinning, which would take the CPU from those who draw noise.
            event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            event.record()
            self._under_way.append(event)
