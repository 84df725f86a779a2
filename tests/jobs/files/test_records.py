from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.errors import RecordError
from jobs.files import records
from jobs.files.layouts import CERTIFICATION, layout_of
from jobs.specs.indices import IndexRange
from jobs.specs.runs import Run
from tests.jobs.specs.test_specs import CERTIFY, GAUSSIAN

RUN = Run(train=GAUSSIAN, task=CERTIFY, indices=IndexRange(start=0, stop=2))
PINNED_SCHEMA = """\
train_key: string not null
certify_key: string not null
dataset: string not null
split: string not null
architecture: string not null
method: string not null
attack: string not null
sigma_train: double not null
sigma_cert: double not null
epsilon: double not null
m_train: int32 not null
num_steps: int32 not null
seed: int64 not null
index: int32 not null
label: int32 not null
prediction: int32 not null
n0: int32 not null
n: int32 not null
n_used: int32 not null
counts0: list<element: int32 not null> not null
  child 0, element: int32 not null
counts: list<element: int32 not null> not null
  child 0, element: int32 not null
count_top: int32 not null
alpha: double not null
p_lower: double not null
radius: double not null
correct: bool not null
stop: string not null
noise: string not null
precision: string not null
elapsed_s: float not null"""


@pytest.fixture
def table() -> pa.Table:
    row = {
        **layout_of(RUN).columns,
        "index": 0,
        "label": 3,
        "prediction": 3,
        "n_used": 1000,
        "counts0": [0, 0, 0, 100, 0, 0, 0, 0, 0, 0],
        "counts": [0, 0, 0, 1000, 0, 0, 0, 0, 0, 0],
        "count_top": 1000,
        "p_lower": 0.99,
        "radius": 0.58,
        "correct": True,
        "stop": "full",
        "elapsed_s": 0.25,
    }
    return pa.Table.from_pylist([row, {**row, "index": 1}], schema=CERTIFICATION.schema)


@pytest.fixture
def path(tmp_path: Path, table: pa.Table) -> Path:
    path = tmp_path / "000000-000002-001.parquet"
    records.write_records(path, table, layout_of(RUN).specs)
    return path


def test_the_schema_is_pinned() -> None:
    assert CERTIFICATION.schema.to_string() == PINNED_SCHEMA


def test_records_survive_the_disk(path: Path, table: pa.Table) -> None:
    assert records.read_records(path).equals(table)
    assert records.check_metadata(path, layout_of(RUN).specs)["smoothadv.schema_version"] == "1"


def test_a_file_written_by_version_1_still_loads() -> None:
    table = records.read_records(Path(__file__).parent / "records-version-1.parquet")
    assert table["radius"].to_pylist() == [0.58, 0.58]
    assert table["counts"].to_pylist()[0][3] == 1000


@pytest.mark.parametrize("kept", [0, 3, 100, -8, -1])
def test_a_truncated_file_is_named(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RecordError, match=rf"{path.name}: cannot be read as Parquet"):
        records.read_records(path)


def test_every_flipped_byte_of_the_data_is_noticed(path: Path, table: pa.Table) -> None:
    sound = path.read_bytes()
    footer_size = int.from_bytes(sound[-8:-4], "little")
    for position in range(4, len(sound) - footer_size - 8, 97):
        damaged = bytearray(sound)
        damaged[position] ^= 0x10
        path.write_bytes(bytes(damaged))
        try:
            read = records.read_records(path)
        except RecordError:
            continue
        assert read.equals(table)  # a byte that carries nothing


def test_every_flipped_bit_that_changes_what_is_read_is_noticed(path: Path, table: pa.Table) -> None:
    sound, metadata = path.read_bytes(), records.read_metadata(path)
    named, unnamed = list[str](), list[tuple[pa.Table, dict[str, str]]]()
    for place in range(0, len(sound), 5):
        damaged = bytearray(sound)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(bytes(damaged))
        try:
            unnamed.append((records.read_records(path, is_thorough=True), records.read_metadata(path)))
        except RecordError as error:
            named.append(str(error))
    assert all(str(path) in text for text in named)
    assert all(found.equals(table) for found, _ in unnamed)
    assert all({name: told.get(name) for name in metadata} == metadata for _, told in unnamed)
    assert len(named) > len(unnamed) > 0, "statistics, offsets and the like, which nothing here reads"


def test_statistics_that_would_hide_rows_are_noticed(path: Path) -> None:
    content, footer = path.read_bytes(), pq.read_metadata(path)
    key = footer.row_group(0).column(0).statistics.max.encode()
    place = content.index(key, len(content) - 8 - footer.serialized_size)
    path.write_bytes(content[:place] + b"#" * len(key) + content[place + len(key) :])
    problem = records.problem_in(path, CERTIFICATION)
    assert problem is not None
    assert "statistics" in problem


def test_foreign_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(RecordError, match="not one of certification records"):
        records.read_records(path)


def test_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.parquet"
    path.write_text("idx label predict radius correct time\n")
    with pytest.raises(RecordError, match="cannot be read as Parquet"):
        records.read_records(path)


def _rewrite(path: Path, table: pa.Table, version: str = "1") -> None:
    pq.write_table(table.replace_schema_metadata({"smoothadv.schema_version": version}), path)


def test_another_schema_version_is_refused(path: Path, table: pa.Table) -> None:
    _rewrite(path, table, version="2")
    with pytest.raises(RecordError, match="schema version 2, but this version of the package reads 1"):
        records.read_records(path)


def test_a_missing_column_is_named(path: Path, table: pa.Table) -> None:
    _rewrite(path, table.drop_columns(["radius"]))
    with pytest.raises(RecordError, match="column 'radius' is missing"):
        records.read_records(path)


def test_a_column_of_another_type_is_named(path: Path, table: pa.Table) -> None:
    position = table.column_names.index("radius")
    _rewrite(path, table.set_column(position, "radius", table["radius"].cast(pa.float32())))
    with pytest.raises(RecordError, match="column 'radius' has type float, expected double"):
        records.read_records(path)


def test_a_null_is_named(path: Path, table: pa.Table) -> None:
    position = table.column_names.index("label")
    nulls: Any = pa.array([1, None], pa.int32())
    _rewrite(path, table.set_column(position, "label", nulls))
    with pytest.raises(RecordError, match="column 'label' has nulls"):
        records.read_records(path)


def test_records_of_another_spec_are_foreign(path: Path) -> None:
    other = replace(RUN, task=replace(CERTIFY, n=500))
    with pytest.raises(RecordError, match=r"records of another run: certify_spec differs: n is 1000, expected 500"):
        records.check_metadata(path, layout_of(other).specs)


def test_a_row_group_holds_whole_runs_and_a_few_are_read_alone(
    tmp_path: Path, table: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, position = tmp_path / "records.parquet", table.column_names.index("train_key")

    def of(key: str) -> pa.Table:
        return table.set_column(position, table.schema.field("train_key"), pa.array([key, key]))

    tables = [of(key) for key in "aabbcddd"]
    monkeypatch.setattr(records, "_SMALL", 3 * tables[0].nbytes // 2)
    monkeypatch.setattr(records, "_LARGE", pa.concat_tables(tables).nbytes * 5 // 16 + 1)
    metadata: dict[str, str] = {}

    def told() -> Iterator[pa.Table]:
        yield from tables
        metadata["source"] = "late"

    records.write_records(path, told(), metadata)
    assert [pq.read_metadata(path).row_group(nr).num_rows for nr in range(4)] == [4, 4, 4, 4]
    assert records.read_metadata(path)["source"] == "late"
    assert records.read_records(path).equals(pa.concat_tables(tables))
    few = list(records.read_row_groups(path, CERTIFICATION, ["train_key", "index"], {"c", "x"}))
    assert [group["train_key"].to_pylist() for group in few] == [["c", "c", "d", "d"]]
    records.write_records(path, pa.concat_tables(tables), {})
    assert [pq.read_metadata(path).row_group(nr).num_rows for nr in range(4)] == [5, 5, 5, 1]
    records.write_records(path, iter([of(key) for key in "adbe"]), {})  # b lies between a and d, but not with them
    few = list(records.read_row_groups(path, CERTIFICATION, ["train_key"], {"b"}))
    assert [group["train_key"].to_pylist() for group in few] == [["b", "b", "e", "e"]]


@pytest.mark.parametrize("column", CERTIFICATION.schema.names)
def test_no_value_may_differ_when_a_file_is_read_back(
    tmp_path: Path, table: pa.Table, column: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    position = table.column_names.index(column)
    changed = table.set_column(position, table.schema.field(column), table[column].take(pa.array([0, 0])))
    if changed.equals(table):
        row = table.to_pylist()[1]
        other = {"stop": "decided", "correct": False, "counts": [1] * 10, "counts0": [2] * 10}.get(column, 7)
        row[column] = f"{row[column]}x" if isinstance(row[column], str) else other
        changed = pa.concat_tables([table.slice(0, 1), pa.Table.from_pylist([row], schema=CERTIFICATION.schema)])
    groups = records.read_row_groups

    def differing(path: Path, *args: Any, **kwargs: Any) -> Any:
        yield from groups(elsewhere, *args, **kwargs)

    elsewhere = tmp_path / "elsewhere.parquet"
    records.write_records(elsewhere, changed, {})
    monkeypatch.setattr(records, "read_row_groups", differing)
    with pytest.raises(RecordError, match="read-back differs from what was written"):
        records.write_records(tmp_path / "records.parquet", table, {})
    assert not (tmp_path / "records.parquet").exists()
