"""What failed, according to the files: also when much failed, often."""

from pathlib import Path
from typing import Any

import pytest

from configs.entry import run_command
from jobs.files import failures
from jobs.files.failures import record_death
from jobs.files.manifest import write_manifest
from jobs.files.store import Store
from jobs.specs.indices import partition
from jobs.specs.units import AggregateUnit, ShardUnit, TrainUnit, Unit
from pipeline.state.files import observe, pending_units, read_history
from pipeline.status import status
from tests.grids import pretend, tiny_manifest

MANIFEST = tiny_manifest()
RUN = MANIFEST.of("certify")[0]
SHARDS = [ShardUnit(run=RUN, indices=shard) for shard in partition(RUN.indices, 7)]
UNITS: list[Unit] = [TrainUnit(train=RUN.train), *SHARDS, AggregateUnit(grid="tiny")]


def _fail(store: Store, num_attempts: int) -> None:
    for unit in UNITS:
        for attempt in range(num_attempts):
            record_death(store, unit, "bug" if attempt % 2 else "timeout", f"job {attempt} failed", Path("log"))


def test_each_failed_unit_costs_one_file_however_often_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, opened = Store(tmp_path), list[Path]()
    _fail(store, 6)
    read_json = failures.read_json

    def counting(path: Path) -> Any:
        opened.append(path)
        return read_json(path)

    monkeypatch.setattr(failures, "read_json", counting)
    observed = observe(MANIFEST, store)
    history = read_history(MANIFEST, observed, store, pending_units(MANIFEST, observed))
    assert history.keys() == {unit.name for unit in UNITS}
    assert len(opened) == len(UNITS)
    assert {(failure.attempt, failure.counts["bug"], failure.counts["timeout"]) for failure in history.values()} == {
        (6, 3, 3)
    }


def test_what_was_made_good_is_not_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _fail(store, 1)
    pretend(store.checkpoint_path(RUN.train.key))
    pretend(store.shard_path(RUN.place, SHARDS[1].indices))
    observed = observe(MANIFEST, store)
    history = read_history(MANIFEST, observed, store, pending_units(MANIFEST, observed))
    assert history.keys() == {SHARDS[0].name, SHARDS[2].name, "aggregate"}


def test_status_groups_alike_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    write_manifest(store.manifest_path("tiny"), MANIFEST)
    for number, unit in enumerate(UNITS):
        record_death(store, unit, "unknown", f"process {number} exited with code 3", Path("log"))
    assert run_command("status", status, ["grid=tiny", f"results={tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert out.count("\nfailed   ") == 1
    assert f"and {len(UNITS) - 1} more for the same reason" in out
