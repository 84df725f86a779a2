"""The host stays near the device, whichever is the faster."""

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


@pytest.mark.parametrize(("is_done", "expected"), [(True, [False] * 19 + [True] + [False] * 10), (False, [False] * 30)])
def test_a_device_that_runs_out_of_work_is_told_of_once(
    is_done: bool, expected: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Event:
        """Of work that is done, or not, when the host has the next piece ready."""

        def __init__(self, *, blocking: bool) -> None: ...

        def record(self) -> None: ...

        def synchronize(self) -> None: ...

        def query(self) -> bool:
            return is_done

    monkeypatch.setattr(torch.cuda, "Event", Event)
    pace, found = Pace(torch.device("cuda"), 3), []
    assert not pace.starves(), "before the first piece nothing can be late"
    for _ in range(30):
        pace.await_room()
        pace.mark()
        found.append(pace.starves())
    assert found == expected
