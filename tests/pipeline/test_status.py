import os
import shutil
import time
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
from pipeline.state.survey import look
from pipeline.status import _num_helpers, status
from tests.grids import pretend, tiny, tiny_manifest


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


def _touch(path: Path, when: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (when, when))


@pytest.mark.parametrize(
    ("ago_s", "said", "is_slow"),
    [(30, "30 s", False), (100, "100 s", False), (300, "5 min", True), (10_000, "2.8 h", True)],
)
def test_status_tells_the_age_of_the_last_progress_and_marks_what_is_slow(
    store: Store,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    ago_s: int,
    said: str,
    is_slow: bool,
) -> None:
    """A training whose epochs usually take 25 s, so that it is slow after more than 125 s."""
    spec = _run(store).train
    unit = TrainUnit(train=spec)
    store.checkpoint_path(spec.key).unlink()
    now = time.time()
    monkeypatch.setattr("pipeline.state.progress.time.time", lambda: now)
    _touch(store.log_path("tiny", unit.name), now - ago_s)
    _touch(store.state_path(spec.key, 1), now - ago_s - 25)
    _touch(store.state_path(spec.key, 2), now - ago_s)
    write_json(store.activity_path("tiny"), {"running": [unit.name], "queued": [], "pid": 1, "time": 0})
    with filelock.FileLock(store.launch_lock_path()):
        text = _status(store, capsys, "verbose=true")
    (line,) = [line for line in text.splitlines() if line.startswith(f"running  {unit.name} ")]
    age = f"last progress {said} ago" + (", usually every 25 s" if is_slow else "")
    assert f"epoch 2 of 3, {age}, log: " in line
    marked = f"slow: 1 running unit without progress for longer than usual: {unit.name} ({age})"
    assert (marked in text) == is_slow


def test_a_shard_is_slow_by_the_usual_time_of_an_image(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """Its images took 30 s each, and the last save is three minutes ago."""
    run = _run(store)
    unit = ShardUnit(run=run, indices=IndexRange(start=0, stop=7))
    shutil.move(store.shard_path(run.place, unit.indices), store.partial_path(run.place, unit.indices))
    partial = store.partial_path(run.place, unit.indices)
    table = pq.read_table(partial)
    pq.write_table(table.set_column(table.column_names.index("elapsed_s"), "elapsed_s", pa.array([30.0] * 7)), partial)
    write_json(store.activity_path("tiny"), {"running": [unit.name], "queued": [], "pid": 1, "time": 0})
    for ago_s, is_slow in ((140, False), (180, True)):
        _touch(partial, time.time() - ago_s)
        _touch(store.log_path("tiny", unit.name), time.time() - ago_s)
        with filelock.FileLock(store.launch_lock_path()):
            assert ("slow: 1 running unit" in _status(store, capsys)) == is_slow


def test_time_left_counts_every_process_of_a_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, manifest = (
        Store(tmp_path),
        tiny_manifest("grid.blocks=[{method: gaussian, sigma: [0.25, 0.5], num_processes: 4}]"),
    )
    done, left = (run.train for run in manifest.runs)
    write_manifest(store.manifest_path("tiny"), manifest)
    store.epochs_path(done.key).parent.mkdir(parents=True)
    pq.write_table(pa.table({"elapsed_s": [7200.0, 3600.0]}), store.epochs_path(done.key))
    pretend(store.checkpoint_path(done.key))
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
