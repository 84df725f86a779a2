"""The host stays near the device, whichever is the faster."""

from __future__ import annotations

import pytest
import torch

from smoothing.transfer import Pace


def waits(device: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What happens to the events of five pieces of work, of which three may be ahead."""
    seen: list[tuple[str, int]] = []

    class Event:
        """Stands for CUDA's, of which there are none without a GPU."""

        def __init__(self, *, blocking: bool) -> None:
            assert blocking
            self.number = sum(what == "record" for what, _ in seen)

        def record(self) -> None:
            seen.append(("record", self.number))

        def synchronize(self) -> None:
            seen.append(("await", self.number))

    monkeypatch.setattr(torch.cuda, "Event", Event)
    pace = Pace(torch.device(device), 3)
    for _ in range(5):
        pace.await_room()
        pace.mark()
    return seen


def test_the_oldest_piece_is_awaited_before_one_too_many_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    first = [("record", 0), ("record", 1), ("record", 2)]
    assert waits("cuda", monkeypatch) == [*first, ("await", 0), ("record", 3), ("await", 1), ("record", 4)]


def test_a_cpu_is_never_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    assert waits("cpu", monkeypatch) == []
