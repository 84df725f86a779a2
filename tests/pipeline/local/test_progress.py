"""Progress counts what running units have saved, and only what this launch did tells how much time is left."""

import contextlib
import time
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.files.store import Store
from jobs.specs.units import TrainUnit
from pipeline.local.progress import Progress
from tests.jobs.units import PGD_RUN


def test_saved_epochs_count_but_only_new_ones_tell_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store, clock = Store(tmp_path), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    unit = TrainUnit(train=replace(PGD_RUN.train, epochs=10))
    store.state_dir(unit.train.key).mkdir(parents=True)

    def line(num_saved: int, seconds: float) -> str:
        for epoch in range(1, num_saved + 1):
            store.state_path(unit.train.key, epoch).touch()
        clock[0] = seconds
        progress.tick()
        return capsys.readouterr().err

    with contextlib.closing(Progress((unit,), store)) as progress:
        store.state_path(unit.train.key, 4).touch()  # of an earlier launch
        progress.start(unit)
        assert line(4, 5.0) == ""  # a line every ten seconds
        assert " 40%  train 0/1, ? left" in line(4, 20.0)
        assert " 60%  train 0/1, 01:20 left" in line(6, 40.0)  # 2 epochs in 40 s: 4 more in 80 s
        progress.finish(unit, succeeded=True)
        clock[0] = 60.0
        progress.tick()
        assert "100%  train 1/1, 00:00 left" in capsys.readouterr().err
