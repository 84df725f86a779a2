from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import filelock
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.entry import run_command
from jobs.atomic import write_json
from jobs.files.failures import record_death
from jobs.files.manifest import read_manifest, write_manifest
from jobs.files.store import Store
from jobs.processes import unit_process, worker
from jobs.specs.indices import IndexRange
from jobs.specs.runs import Run
from jobs.specs.units import ShardUnit, TrainUnit
from pipeline.estimate import estimate
from pipeline.launch import launch
from pipeline.state.activity import Activity, read_activity
from pipeline.status import _num_helpers, look, status
from tests.grids import tiny, tiny_manifest


@pytest.fixture
def store(tmp_path: Path, undisturbed_results: Path) -> Store:
    return Store(Path(shutil.copytree(undisturbed_results, tmp_path / "results")))


def _run(store: Store) -> Run:
    return read_manifest(store.manifest_path("tiny")).runs[1]


def _row(text: str, stage: str) -> list[int]:
    (line,) = [line for line in text.splitlines() if line.startswith(stage)]
    return [int(number) for number in line.split()[1:]]


def _status(store: Store, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    assert run_command("status", status, ["grid=tiny", f"results={store.root}", *more]) == 0
    return capsys.readouterr().out


def test_a_complete_grid(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    text = _status(store, capsys)
    assert [_row(text, stage) for stage in ("train", "certify", "aggregate")] == [
        [3, 3, 0, 0, 0, 0],
        [3, 3, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
    ]
    assert "images certified: 63 of 63" in text


def test_missing_and_failed_are_told_apart(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    run = _run(store)
    store.shard_path(run.place, IndexRange(start=0, stop=7)).unlink()
    first = read_manifest(store.manifest_path("tiny")).runs[0]
    store.checkpoint_path(first.train.key).unlink()
    unit = ShardUnit(run=run, indices=IndexRange(start=0, stop=7))
    record_death(store, unit, "unknown", "the process was killed", store.log_path("tiny", unit.name))
    text = _status(store, capsys)
    assert _row(text, "train") == [3, 2, 0, 0, 0, 1]
    assert _row(text, "certify") == [3, 2, 0, 0, 1, 0]
    assert "images certified: 56 of 63" in text
    assert f"failed   {unit.name} (unknown, attempt 1)" in text
    assert "the process was killed" in text
    assert str(store.log_path("tiny", unit.name)) in text


def test_a_failure_that_was_made_good_is_not_shown(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    record_death(store, TrainUnit(train=_run(store).train), "unknown", "killed", Path("log"))
    assert "failed  " not in _status(store, capsys).split("images certified")[1]


def test_a_launch_at_work_shows_what_runs(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    run = _run(store)
    store.checkpoint_path(run.train.key).unlink()
    shutil.rmtree(store.shards_dir(run.place))
    shard = ShardUnit(run=run, indices=IndexRange(start=0, stop=7))
    activity = {"running": [TrainUnit(train=run.train).name], "queued": [shard.name], "pid": 1, "time": 0}
    write_json(store.activity_path("tiny"), activity)
    with filelock.FileLock(store.launch_lock_path()):
        text = _status(store, capsys, "verbose=true")
    assert _row(text, "train") == [3, 2, 1, 0, 0, 0]
    assert _row(text, "certify") == [3, 2, 0, 1, 0, 0]
    assert run.train.key in text
    # The same without a launch: what a killed one left behind means nothing.
    assert _row(_status(store, capsys), "train") == [3, 2, 0, 0, 0, 1]


def test_time_left_counts_every_process_of_a_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, manifest = (
        Store(tmp_path),
        tiny_manifest("grid.blocks=[{method: gaussian, sigma: [0.25, 0.5], num_processes: 4}]"),
    )
    done, left = (run.train for run in manifest.runs)
    write_manifest(store.manifest_path("tiny"), manifest)
    store.epochs_path(done.key).parent.mkdir(parents=True)
    pq.write_table(pa.table({"elapsed_s": [7200.0, 3600.0]}), store.epochs_path(done.key))
    store.checkpoint_path(done.key).write_bytes(b"weights")
    activity = {"running": [TrainUnit(train=left).name], "queued": [], "pid": 1, "time": 0}
    write_json(store.activity_path("tiny"), activity)
    with filelock.FileLock(store.launch_lock_path()):
        text = _status(store, capsys)
        found = look(manifest, store)
    assert "device hours: 12 spent" in text
    hours = estimate(manifest, found.found.observed, store)
    assert hours.left_h["train"] == pytest.approx(12)
    assert _num_helpers(found) == 3


def test_status_writes_nothing(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    def listing() -> dict[str, tuple[int, int]]:
        return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in store.root.rglob("*") if p.is_file()}

    before = listing()
    _status(store, capsys, "verbose=true")
    assert listing() == before


def test_an_unknown_grid_exits_2(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("status", status, ["grid=tony", f"results={store.root}"]) == 2
    assert "unknown grid 'tony' (did you mean 'tiny'?)" in capsys.readouterr().err


def test_an_empty_results_folder_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("status", status, ["grid=tiny", f"results={tmp_path}"]) == 2
    assert "no grid was launched into" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_a_launch_says_what_it_is_going_to_do_before_its_processes_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Activity] = []

    def interrupted(_: object) -> None:
        seen.append(read_activity(Store(tmp_path), "tiny"))
        raise KeyboardInterrupt

    monkeypatch.setattr(unit_process, "start_fork_server", interrupted)
    assert run_command("launch", launch, tiny(tmp_path, "cluster=local")) == 130
    (activity,) = seen
    assert len(activity.queued) == 13
    assert not activity.running


def test_a_launch_in_this_very_process_says_what_it_is_doing(
    undisturbed_results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    shutil.copytree(undisturbed_results, results)
    Store(results).records_path("tiny").unlink()
    seen: list[Activity] = []
    execute = worker.execute

    def watched(*arguments: Any) -> None:
        seen.append(read_activity(Store(results), "tiny"))
        execute(*arguments)

    monkeypatch.setattr(worker, "execute", watched)
    assert run_command("launch", launch, tiny(results, "cluster=debug")) == 0
    assert [activity.running for activity in seen] == [{"aggregate"}]
    assert not Store(results).activity_path("tiny").exists()
