import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs import aggregate
from jobs.datasets import CONTENT
from jobs.errors import RecordError
from jobs.files import records
from jobs.files.manifest import read_manifest
from jobs.files.store import Store
from jobs.specs.indices import IndexRange, partition
from jobs.specs.runs import Run
from jobs.specs.units import AggregateUnit, Resources
from tests.grids import grid_records
from tests.jobs.units import certify_here


@pytest.fixture
def store(tmp_path: Path, undisturbed_results: Path) -> Store:
    return Store(Path(shutil.copytree(undisturbed_results, tmp_path / "results")))


def _run(store: Store) -> Run:
    return read_manifest(store.manifest_path("tiny")).runs[1]


def _shards(store: Store) -> list[Path]:
    run = _run(store)
    keys = run.place
    return [store.shard_path(keys, shard) for shard in store.finished_shards(keys)]


def _aggregate(store: Store) -> None:
    aggregate.run(AggregateUnit(grid="tiny"), store, Resources())


def _rewrite(path: Path, table: pa.Table, **metadata: str) -> None:
    records.write_records(path, table, {**records.read_metadata(path), **metadata})


def test_all_runs_and_images_are_there_once(store: Store) -> None:
    table = grid_records(store.root)
    runs = read_manifest(store.manifest_path("tiny")).runs
    expected = [(run.train.key, index) for run in runs for index in run.indices]
    assert list(zip(table["train_key"].to_pylist(), table["index"].to_pylist(), strict=True)) == expected


def test_aggregating_again_gives_the_same(store: Store, undisturbed_records: pa.Table) -> None:
    store.records_path("tiny").unlink()
    _aggregate(store)
    assert grid_records(store.root).equals(undisturbed_records)


def test_what_a_killed_shard_left_behind_is_tidied_up(store: Store) -> None:
    """Killed after its file was there, and before its unfinished one was gone: no launch does that shard again."""
    finished, other = _shards(store)[:2]
    left = finished.with_name(f"{finished.stem}.partial.parquet")
    shutil.copy(finished, left)
    store.records_path("tiny").unlink()
    _aggregate(store)
    assert not left.exists()
    assert finished.exists()
    assert other.exists()


def test_a_gap_is_an_error(store: Store) -> None:
    _shards(store)[1].unlink()
    with pytest.raises(RecordError, match=r"7 of 21 images are not certified \(first: 7\); launch the grid again"):
        _aggregate(store)


def test_an_image_in_two_files_is_an_error(store: Store) -> None:
    first = _shards(store)[0]
    table = records.read_records(first)
    twin = first.with_name("000003-000004-001.parquet")
    shutil.copy(first, twin)
    _rewrite(twin, table.slice(3, 1))
    with pytest.raises(RecordError, match=rf"{twin.name}: 1 images \(first: 3\) are also in other files; moved to"):
        _aggregate(store)
    assert not twin.exists()
    _aggregate(store)


@pytest.mark.parametrize(
    ("start", "removed", "left"),
    [
        (0, None, ["0-7-1", "7-14-1", "14-21-1"]),
        (10, None, ["0-7-1", "7-14-1", "14-21-1"]),
        (10, 2, ["0-7-1", "10-21-1"]),
        (0, 0, ["0-21-1"]),
    ],
)
def test_shards_of_two_cuts_end_as_a_partition(
    store: Store, undisturbed_records: pa.Table, start: int, removed: int | None, left: list[str]
) -> None:
    run, indices = _run(store), IndexRange(start=start, stop=21)
    other = Store(store.root.parent / "other")
    shutil.copytree(store.run_dir(run.train.key), other.run_dir(run.train.key))
    shutil.rmtree(other.shards_dir(run.place))
    certify_here(other, run, indices)
    keys = run.place
    if removed is not None:
        _shards(store)[removed].unlink()
    shutil.copy(other.shard_path(keys, indices), store.shard_path(keys, indices))
    store.records_path("tiny").unlink()
    with pytest.raises(RecordError, match=r"are also in other files; moved to .*; launch again"):
        _aggregate(store)
    assert [*map(str, store.finished_shards(keys))] == left
    for missing in partition(store.unfinished(keys, run.indices), 100):  # as the next launch does
        certify_here(store, run, missing)
    _aggregate(store)
    assert grid_records(store.root).equals(undisturbed_records)


def test_shards_that_lie_between_one_another_are_joined_in_order(store: Store, undisturbed_records: pa.Table) -> None:
    run = _run(store)
    shutil.rmtree(store.shards_dir(run.place))
    for cut in ((0, 8, 2), (1, 9, 4), (3, 9, 4), (8, 9, 1), (9, 21, 1)):
        certify_here(store, run, IndexRange(start=cut[0], stop=cut[1], step=cut[2]))
    store.records_path("tiny").unlink()
    _aggregate(store)
    assert grid_records(store.root).equals(undisturbed_records)


def test_a_truncated_shard_does_not_count(store: Store) -> None:
    path = _shards(store)[2]
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(RecordError, match=r"7 of 21 images are not certified \(first: 14\); launch the grid again"):
        _aggregate(store)


def test_an_overwritten_shard_is_set_aside(store: Store) -> None:
    path = _shards(store)[2]
    content = path.read_bytes()
    path.write_bytes(content[:300] + bytes(300) + content[600:])
    with pytest.raises(RecordError, match=rf"{path.name}: cannot be read as Parquet.*moved to {path.name}.rejected-1"):
        _aggregate(store)
    assert not path.exists()


def test_a_shard_of_another_run_is_set_aside(store: Store) -> None:
    path = _shards(store)[0]
    other = read_manifest(store.manifest_path("tiny")).runs[0]
    foreign = store.shard_path(other.place, store.finished_shards(other.place)[0])
    shutil.copy(foreign, path)
    with pytest.raises(RecordError, match=r"records of another run: train_spec differs: .*method"):
        _aggregate(store)
    assert not path.exists()


def test_rows_that_are_not_those_of_the_name_are_an_error(store: Store) -> None:
    path = _shards(store)[0]
    _rewrite(path, records.read_records(path).slice(0, 5))
    with pytest.raises(RecordError, match="its 5 rows do not match the indices in its name"):
        _aggregate(store)


def test_mixed_parameters_in_rows_are_an_error(store: Store) -> None:
    path = _shards(store)[0]
    table = records.read_records(path)
    position = table.column_names.index("alpha")
    mixed = pa.array([0.001] * 6 + [0.01])
    _rewrite(path, table.set_column(position, "alpha", mixed))
    with pytest.raises(RecordError, match=r"mixed parameters, column 'alpha' holds \[0.001, 0.01\], expected 0.001"):
        _aggregate(store)


def test_shards_of_different_weights_are_an_error(store: Store) -> None:
    path = _shards(store)[0]
    _rewrite(path, records.read_records(path), checkpoint_sha256="f" * 64)
    with pytest.raises(RecordError, match="certified with different weights"):
        _aggregate(store)


def test_runs_on_different_images_are_an_error(store: Store) -> None:
    """With the same indices, as two trees of images have them; results that do not say are left alone."""
    first = read_manifest(store.manifest_path("tiny")).runs[0]
    for images in ("", "b" * 64):
        for path in _shards(store):
            _rewrite(path, records.read_records(path), images=images or "unknown")
        if not images:
            _aggregate(store)
            continue
        with pytest.raises(
            RecordError, match=f"different images: {first.train.key}/.* fingerprint bbbbbbbbbbbb|bbbbbbb"
        ):
            _aggregate(store)
        with pytest.raises(RecordError, match="different images"):
            _aggregate(store)


def test_fingerprints_over_names_and_over_contents_are_not_compared_with_each_other(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three models the first was certified before fingerprints were over contents, and of the second a part."""
    manifest = read_manifest(store.manifest_path("tiny"))
    told = dict(zip(manifest.runs, ("a" * 16, f"{'a' * 16}, {CONTENT}{'b' * 16}", f"{CONTENT}{'b' * 16}"), strict=True))
    of_run = aggregate.run_tables

    def told_tables(run: Run, *args: Any, **kwargs: Any) -> Any:
        metadata = yield from of_run(run, *args, **kwargs)
        return {**metadata, "images": told[run]}

    monkeypatch.setattr(aggregate, "run_tables", told_tables)
    _aggregate(store)
    told[manifest.runs[2]] = f"{CONTENT}{'c' * 16}"
    with pytest.raises(
        RecordError, match=r"different images: .* fingerprint bbbbbbbbbbbb, .* those with cccccccccccc; "
    ):
        _aggregate(store)


def test_all_problems_of_all_runs_are_reported(store: Store) -> None:
    _shards(store)[1].unlink()
    run = read_manifest(store.manifest_path("tiny")).runs[0]
    shutil.rmtree(store.shards_dir(run.place))
    with pytest.raises(RecordError) as caught:
        _aggregate(store)
    assert "7 of 21 images" in str(caught.value)
    assert "21 of 21 images" in str(caught.value)


def test_an_edited_manifest_is_an_error(store: Store) -> None:
    path = store.manifest_path("tiny")
    path.write_text(path.read_text().replace('"sigma": 0.25', '"sigma": -0.25'))
    with pytest.raises(RecordError, match=r"grid.json: not a grid manifest .*sigma"):
        _aggregate(store)


def test_a_manifest_of_another_format_is_an_error(store: Store) -> None:
    path = store.manifest_path("tiny")
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(RecordError, match=r"format 2, but this version reads 1; launch the grid again"):
        _aggregate(store)
