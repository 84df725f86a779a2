"""Every damaged file is named, and the next launch makes it again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.envelope import envelope
from configs.entry import run_command
from jobs.files import records
from jobs.files.layouts import CERTIFICATION
from jobs.files.manifest import read_manifest
from jobs.files.store import Store
from pipeline.launch import launch
from pipeline.status import status
from pipeline.verify import verify
from tests.grids import ATTACKED, tiny


def _launch(results: Path, *more: str) -> int:
    return run_command("launch", launch, tiny(results, *ATTACKED, *more))


def _verify(results: Path, *more: str) -> int:
    return run_command("verify", verify, ["grid=tiny", f"results={results}", *more])


@pytest.fixture
def results(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "results"))


def _rows(results: Path) -> pa.Table:
    return records.read_records(Store(results).records_path("tiny", "certify")).drop_columns(["elapsed_s"])


def _flip(path: Path) -> None:
    """A byte of the data: the last one of the first column, or somewhere in the first tensors."""
    content = bytearray(path.read_bytes())
    place = len(content) // 4
    if path.suffix == ".parquet":
        column = pq.read_metadata(path).row_group(0).column(0)
        starts = [column.data_page_offset, column.dictionary_page_offset]
        place = min(start for start in starts if start is not None) + column.total_compressed_size - 1
    content[place] ^= 0xFF
    path.write_bytes(content)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _edit(path: Path) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "sigma": 0.5}))


def _other_rows(path: Path) -> None:
    metadata = pq.read_schema(path).metadata
    table = records.read_records(path)
    changed = table.set_column(table.schema.get_field_index("radius"), "radius", pa.array([9.0] * len(table)))
    pq.write_table(changed.cast(CERTIFICATION.schema).replace_schema_metadata(metadata), path, write_page_checksum=True)


def test_what_is_sound_is_said_to_be_and_nothing_is_touched(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*")}
    assert _verify(results) == 0
    assert "read 1 model and 4 shards" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*")} == before


@pytest.mark.parametrize("damage", [_flip, _truncate])
@pytest.mark.parametrize("pattern", ["checkpoint.pt", "epochs.parquet", "000003-*.parquet", "records.parquet"])
def test_every_damage_is_named(
    results: Path, pattern: str, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = results.rglob(pattern)
    damage(path)
    assert _verify(results) == 1
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith(f"error: {path}: ")
    assert "1 problem" in captured.out


def test_an_edited_spec_and_other_rows_than_the_shards_are_named(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (spec,), (joined,) = results.rglob("spec.json"), results.rglob("records.parquet")
    _edit(spec)
    _other_rows(joined)
    assert _verify(results) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"error: {spec}: belongs to another spec (sigma is 0.5, expected 0.25)"
    assert second == f"error: {joined}: its rows differ from those of the shards"


@pytest.mark.parametrize("pattern", ["000003-*.parquet", "records.parquet", "checkpoint.pt"])
def test_what_was_set_aside_is_made_again(sound: Path, results: Path, pattern: str) -> None:
    (path,) = results.rglob(pattern)
    _flip(path)
    assert _verify(results, "set_aside=true") == 1
    assert path.with_name(f"{path.name}.rejected-1").exists()
    assert _launch(results) == 0
    assert _verify(results) == 0
    assert _rows(results).equals(_rows(sound))


@pytest.mark.parametrize("damage", [_flip, _truncate, _empty])
def test_damaged_records_are_found_by_status_and_launch_and_made_again(
    sound: Path, results: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = results.rglob("records.parquet")
    damage(path)
    assert run_command("status", status, ["grid=tiny", f"results={results}"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("aggregate")]
    assert line.split()[:3] == ["aggregate", "1", "0"]
    assert _launch(results) == 0
    assert _rows(results).equals(_rows(sound))
    assert run_command("envelope", envelope, ["grid=tiny", f"results={results}"]) == 0


def test_an_empty_shard_or_checkpoint_does_not_count_and_is_made_again(sound: Path, results: Path) -> None:
    (shard,), (checkpoint,) = results.rglob("000003-*.parquet"), results.rglob("checkpoint.pt")
    _empty(shard)
    _empty(checkpoint)
    store = Store(results)
    (run,) = read_manifest(store.manifest_path("tiny")).of("certify")
    assert len(store.finished_shards(run.place)) == 1
    assert not store.is_trained(run.train.key)
    assert _launch(results) == 0
    assert _verify(results) == 0
    assert _rows(results).equals(_rows(sound))


def test_damaged_times_are_not_device_hours(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in results.rglob("certify/*/*-*-*.parquet"):
        metadata, table = pq.read_schema(path).metadata, records.read_records(path)
        times = pa.array([-7e28] * len(table), pa.float32())
        changed = table.set_column(table.schema.get_field_index("elapsed_s"), "elapsed_s", times)
        pq.write_table(
            changed.cast(CERTIFICATION.schema).replace_schema_metadata(metadata), path, write_page_checksum=True
        )
    assert run_command("status", status, ["grid=tiny", f"results={results}"]) == 0
    out = capsys.readouterr().out
    assert "certify (not measured yet)" in out
    assert "e+" not in out
