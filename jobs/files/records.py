"""Records: one row per (run, image), in Parquet, checked when written and when read."""

import bisect
import contextlib
import functools
import itertools
import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.atomic import write_atomically
from jobs.errors import RecordError
from jobs.files.layouts import CERTIFICATION, RecordKind
from jobs.specs.keys import differences
from smoothing.certificate import Certificate

SCHEMA_VERSION = 1
_VERSION_KEY = "smoothadv.schema_version"
_KIND_KEY = "smoothadv.kind"
_CHECKSUM_KEY, _ROWS_KEY = "smoothadv.metadata_crc32", "smoothadv.rows_crc32"

CLEAN_CORRECT, CLEAN_SEEN = "clean_correct", "clean_seen"
"""In the metadata of certification shards: how many of their images the base classifier gets right without noise, and
how many it was asked about."""


def image_columns(label: int, certificate: Certificate) -> dict[str, Any]:
    """The columns that belong to one image, except index, label and time."""
    return {
        "prediction": certificate.prediction,
        "n_used": int(certificate.counts.sum()),
        "counts0": certificate.counts0.tolist(),
        "counts": certificate.counts.tolist(),
        "count_top": certificate.count_top,
        "p_lower": certificate.p_lower,
        "radius": certificate.radius,
        "correct": certificate.prediction == label,
        "stop": certificate.stop,
    }


def write_records(
    path: Path,
    tables: pa.Table | Iterable[pa.Table],
    metadata: Mapping[str, str],
    kind: RecordKind = CERTIFICATION,
    *,
    replace: bool = True,
) -> None:
    """Write records atomically, with page checksums, and read them back before they count.

    Holds a row group at a time in memory. A row group has whole runs, of at least ``_SMALL`` bytes together, or a part
    of one: whoever reads a few runs skips the others.

    ``tables`` have the kind's columns; strings may be dictionary-encoded. ``metadata``, which is read after the last
    table, goes into the file's, beside kind and schema version. ``replace=False`` leaves a file alone that is there.
    """
    written: list[int] = []

    def write(temporary: Path) -> None:
        # Types are those that a reader infers, whether or not strings are written from dictionaries.
        schema = _encoded(kind.schema)
        options = {"compression": "zstd", "write_page_checksum": True, "store_schema": False}
        with pq.ParquetWriter(temporary, schema, use_dictionary=_strings(kind.schema), **options) as writer:
            for group in _row_groups([tables] if isinstance(tables, pa.Table) else tables, schema):
                writer.write_table(group)
                written.append(_checksum(group))
            stamp = {_VERSION_KEY: str(SCHEMA_VERSION), _KIND_KEY: kind.name, _ROWS_KEY: _checksum_of(written)}
            own = {**metadata, **stamp}
            own.pop(_CHECKSUM_KEY, None)
            writer.add_key_value_metadata({**own, _CHECKSUM_KEY: _checksum_of(own)})

    def check(temporary: Path) -> None:
        groups = read_row_groups(temporary, kind, kind.schema.names)
        if [_checksum(group) for group in groups] != written:
            raise RecordError(f"{path}: read-back differs from what was written; check the file system")

    write_atomically(path, write, check, replace=replace)


_SMALL, _LARGE = 1 << 21, 1 << 24  # bytes of a row group in memory


def _strings(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if field.type == pa.string()]


def _encoded(fields: Iterable[pa.Field]) -> pa.Schema:
    encoded = pa.dictionary(pa.int32(), pa.string())
    return pa.schema([field.with_type(encoded) if field.type == pa.string() else field for field in fields])


def _row_groups(tables: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of all tables, in one table per row group; one empty table if there are no rows."""
    held: list[pa.Table] = []
    size, run = 0, None
    for table in itertools.chain.from_iterable(map(_parts, tables)):
        before, run = run, [table[name][0].as_py() for name in schema.names[:2]]  # the keys
        if held and (size + table.nbytes > _LARGE or (size >= _SMALL and run != before)):
            yield pa.concat_tables(held).unify_dictionaries()
            held, size = [], 0
        stored = [
            table[name].dictionary_encode() if table[name].type == pa.string() else table[name].cast(type_)
            for name, type_ in zip(schema.names, schema.types, strict=True)
        ]
        held.append(pa.Table.from_arrays(stored, schema=schema))
        size += table.nbytes
    yield pa.concat_tables(held).unify_dictionaries() if held else schema.empty_table()


def _parts(table: pa.Table) -> Iterator[pa.Table]:
    """A table in parts that are at most as large as a row group."""
    num_rows = max(1, _LARGE * len(table) // max(1, table.nbytes))
    return (table.slice(start, num_rows) for start in range(0, len(table), num_rows))


def _checksum(table: pa.Table) -> int:
    """A checksum of the values, which does not depend on chunks or on the order of dictionaries."""
    total = 0
    for column in table.columns:
        values = column.combine_chunks()
        if values.null_count:
            total = zlib.crc32(np.packbits(values.is_null().to_numpy(zero_copy_only=False)).data, total)
            values = values.drop_null()
        if pa.types.is_list(values.type):
            total = zlib.crc32(values.value_lengths().to_numpy(), total)
            values = values.flatten()
        if pa.types.is_dictionary(values.type):
            hashes = [zlib.crc32(text.encode()) for text in values.dictionary.to_pylist()]
            numbers = np.array(hashes, np.uint32)[values.indices.to_numpy()]
        else:
            numbers = values.to_numpy(zero_copy_only=False)
        total = zlib.crc32(np.ascontiguousarray(numbers).data, total)
    return total


def read_records(
    path: Path, kind: RecordKind = CERTIFICATION, columns: Sequence[str] | None = None, *, is_thorough: bool = False
) -> pa.Table:
    """All rows of a records file, every page's checksum verified; columns exactly the kind's.

    With ``columns``, these alone, in this order; columns of strings then come dictionary-encoded. ``is_thorough`` says
    that all columns are read and compared with the checksum of what was written: those of pages do not cover the
    pages' headers. Files of earlier versions have none.

    Raises:
        RecordError: The file cannot be read, is of another kind or schema version, lacks a column, has
            one of another type, or a null where none is allowed. Names file and column.
    """
    groups = [*read_row_groups(path, kind, columns or kind.schema.names)]
    if is_thorough and read_metadata(path).get(_ROWS_KEY) not in (None, _checksum_of([*map(_checksum, groups)])):
        raise RecordError(f"{path}: damaged: its rows differ from those that were written")
    table = pa.concat_tables(groups)
    return table.cast(kind.schema) if columns is None else table.unify_dictionaries()


def read_row_groups(
    path: Path, kind: RecordKind, columns: Sequence[str], runs: Collection[str] | None = None
) -> Iterator[pa.Table]:
    """The row groups of a records file in order, strings dictionary-encoded; one empty table if there are none.

    They have the columns named, in this order. With ``runs``, those that hold none of these train keys are left out.
    Raises as ``read_records``.
    """
    with _parquet(path) as file:
        _check_stamp(path, _own_metadata(path, file), kind.name)
        _check_columns(path, file.schema_arrow, kind)
        footer = file.metadata  # which takes long to read of many row groups
    with _parquet(path, read_dictionary=_strings(kind.schema), metadata=footer) as file:
        keys = None if runs is None else sorted(runs)
        groups = [number for number in range(file.num_row_groups) if keys is None or _may_hold(file, number, keys)]
        if not groups:
            yield _encoded(map(kind.schema.field, columns)).empty_table()
        for number in groups:
            table = file.read_row_group(number, columns=list(columns), use_threads=False)
            table.validate(full=True)  # an index beyond its dictionary ends a process
            for name in columns:
                if not kind.schema.field(name).nullable and table[name].null_count:
                    raise RecordError(f"{path}: column {name!r} has nulls where none are allowed")
            yield table.select(list(columns)).replace_schema_metadata(None)


def _may_hold(file: pq.ParquetFile, group: int, keys: Sequence[str]) -> bool:
    """Whether a row group may contain one of these sorted train keys."""
    statistics = file.metadata.row_group(group).column(0).statistics  # of train_key
    if statistics is not None and statistics.has_min_max:
        nearest = bisect.bisect_left(keys, statistics.min)
        if nearest == len(keys) or keys[nearest] > statistics.max:
            return False
        if statistics.min == statistics.max:
            return True
    held = file.read_row_group(group, columns=[file.schema_arrow.names[0]]).column(0)
    return not set(keys).isdisjoint(held.unique().to_pylist())


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a file, without reading rows. Raises RecordError if it cannot be read as Parquet."""
    with _parquet(path) as file:
        return _own_metadata(path, file)


def problem_in(path: Path, kind: RecordKind) -> str | None:
    """What is wrong with a records file, all of which is read (again only if it has changed); None if nothing is."""
    status = path.stat()
    return _problem_in(path, kind, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)  # status watches
def _problem_in(path: Path, kind: RecordKind, size: int, mtime_ns: int) -> str | None:
    del size, mtime_ns
    try:
        with _parquet(path) as file:
            for number, group in enumerate(read_row_groups(path, kind, kind.schema.names)):
                keys = group["train_key"].unique().to_pylist()
                if not all(_may_hold(file, number, [key]) for key in keys):
                    raise RecordError(f"{path}: damaged: the rows of group {number} do not match its statistics")
    except RecordError as error:
        return str(error).removeprefix(f"{path}: ")
    return None


def num_rows(path: Path) -> int:
    """The number of rows of a file that may be replaced meanwhile; 0 if it cannot be read."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError):
        return 0


def check_metadata(path: Path, specs: Mapping[str, str]) -> dict[str, str]:
    """The metadata of a records file. Raises RecordError if it lacks one of these specs (canonical JSON by name)."""
    metadata = read_metadata(path)
    for name, expected in specs.items():
        if metadata.get(name) == expected:
            continue
        difference = "everything (it has none)"
        if name in metadata:
            try:
                difference = differences(dict(json.loads(metadata[name])), json.loads(expected))
            except (TypeError, ValueError):
                difference = "everything (it is damaged)"
        raise RecordError(f"{path}: records of another run: {name} differs: {difference}")
    return metadata


@contextlib.contextmanager
def _parquet(path: Path, **options: Any) -> Iterator[pq.ParquetFile]:
    """An open Parquet file; errors of Arrow inside the block become a RecordError.

    Errors of the system (no such file, a disk that does not answer) say nothing about the content, and pass through.
    """
    with path.open("rb") as opened:
        try:
            yield pq.ParquetFile(opened, page_checksum_verification=True, **options)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # UnicodeDecodeError: a flipped bit in a name
            if isinstance(error, OSError) and error.errno is not None:
                raise
            reason = str(error).partition("\n")[0]
            raise RecordError(f"{path}: cannot be read as Parquet: truncated or damaged ({reason})") from error


def _own_metadata(path: Path, file: pq.ParquetFile) -> dict[str, str]:
    raw = file.schema_arrow.metadata or {}
    # A flipped bit may leave text that is not UTF-8; it then differs from every expected value.
    own = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in raw.items()}
    expected = own.pop(_CHECKSUM_KEY, None)  # files of earlier versions have none
    # A newer version is reported as such, whatever its checksum covers.
    if own.get(_VERSION_KEY) == str(SCHEMA_VERSION) and expected not in (None, _checksum_of(own)):
        raise RecordError(f"{path}: damaged: the checksum of its metadata does not match their content")
    return own


def _checksum_of(content: dict[str, str] | list[int]) -> str:
    """A checksum of metadata, which page checksums do not cover, or of the checksums of row groups."""
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"


def _check_stamp(path: Path, metadata: Mapping[str, str], kind: str) -> None:
    version, found = metadata.get(_VERSION_KEY), metadata.get(_KIND_KEY, CERTIFICATION.name)
    if version is None:
        raise RecordError(f"{path}: a Parquet file, but not one of {kind} records (no {_VERSION_KEY})")
    if version != str(SCHEMA_VERSION):
        raise RecordError(
            f"{path}: schema version {version}, but this version of the package reads {SCHEMA_VERSION}; "
            "read it with the version that wrote it, or certify again"
        )
    if found != kind:
        raise RecordError(f"{path}: holds records of kind {found!r}, expected {kind!r}")


def _check_columns(path: Path, found: pa.Schema, kind: RecordKind) -> None:
    for field in kind.schema:
        if field.name not in found.names:
            raise RecordError(f"{path}: column {field.name!r} is missing")
        type_found = found.field(field.name).type
        if not type_found.equals(field.type):
            raise RecordError(f"{path}: column {field.name!r} has type {type_found}, expected {field.type}")
