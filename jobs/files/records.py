"""Records: one row per (run, image), in Parquet, checked when written and when read."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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


def image_columns(label: int, certificate: Certificate) -> dict[str, Any]:
    """The columns that are one image's own, but for index, label and time."""
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
    table: pa.Table,
    metadata: Mapping[str, str],
    kind: RecordKind = CERTIFICATION,
    *,
    replace: bool = True,
) -> None:
    """Write a table of records atomically, with page checksums, and read it back before it counts.

    The file's metadata also hold kind and schema version. ``replace=False`` leaves a file alone that is there already.
    """
    cast = table.cast(kind.schema)
    stamp = {_VERSION_KEY: str(SCHEMA_VERSION), _KIND_KEY: kind.name}
    stamped = cast.replace_schema_metadata({**metadata, **stamp})

    def write(temporary: Path) -> None:
        pq.write_table(stamped, temporary, compression="zstd", write_page_checksum=True)

    def check(temporary: Path) -> None:
        if not read_records(temporary, kind).equals(cast):
            raise RecordError(f"{path}: read-back differs from what was written; check the file system")

    write_atomically(path, write, check, replace=replace)


def read_records(path: Path, kind: RecordKind = CERTIFICATION, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a records file, every page's checksum verified; columns exactly the kind's.

    With ``columns``, these alone, in this order; columns of strings then come dictionary-encoded.

    Raises:
        RecordError: The file cannot be read, is of another kind or schema version, lacks a column, has
            one of another type, or a null where none is allowed. Names file and column.
    """
    strings = [name for name in columns or () if kind.schema.field(name).type == pa.string()]
    with _parquet(path, read_dictionary=strings) as file:
        _check_stamp(path, _own_metadata(file), kind.name)
        _check_columns(path, file.schema_arrow, kind, encoded=strings)
        table = file.read(columns=list(kind.schema.names if columns is None else columns))
    for name in table.column_names:
        if not kind.schema.field(name).nullable and table[name].null_count:
            raise RecordError(f"{path}: column {name!r} has nulls where none are allowed")
    if columns is None:
        return table.select(kind.schema.names).cast(kind.schema).replace_schema_metadata(None)
    return table.select(list(columns)).replace_schema_metadata(None)


def read_metadata(path: Path) -> dict[str, str]:
    """The file's own metadata, without reading rows.

    Raises:
        RecordError: The file cannot be read as Parquet.
    """
    with _parquet(path) as file:
        return _own_metadata(file)


def is_sound(path: Path, kind: RecordKind = CERTIFICATION) -> bool:
    """Whether all of a records file can be read, every page's checksum verified; read again when it has changed."""
    try:
        status = path.stat()
        return _is_sound(path, kind.name, status.st_size, status.st_mtime_ns)
    except OSError:
        return False


@functools.lru_cache(maxsize=64)  # status watches
def _is_sound(path: Path, kind: str, size: int, mtime_ns: int) -> bool:
    del size, mtime_ns
    try:
        with _parquet(path) as file:
            _check_stamp(path, _own_metadata(file), kind)
            for _ in file.iter_batches():
                pass
    except RecordError:
        return False
    return True


def num_rows(path: Path) -> int:
    """The number of rows of a file that may vanish or be replaced while we look; 0 if it cannot be read."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError):
        return 0


def check_metadata(path: Path, specs: Mapping[str, str]) -> dict[str, str]:
    """The metadata of a records file, which must hold the specs given, canonical JSON by name.

    Raises:
        RecordError: The file is of other specs; names the fields that differ.
    """
    metadata = read_metadata(path)
    for name, expected in specs.items():
        found = metadata.get(name)
        if found != expected:
            raise RecordError(f"{path}: foreign records, {name} differs: {_differences(found, expected)}")
    return metadata


@contextlib.contextmanager
def _parquet(path: Path, read_dictionary: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
    """An open Parquet file; whatever Arrow finds wrong with it inside the block is a RecordError.

    Errors of the system (no such file, a disk that does not answer) pass through: they say nothing
    about the content.
    """
    with path.open("rb") as opened:
        try:
            yield pq.ParquetFile(opened, page_checksum_verification=True, read_dictionary=list(read_dictionary))
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            reason = str(error).partition("\n")[0]
            raise RecordError(f"{path}: cannot be read as Parquet, truncated or damaged ({reason})") from error


def _own_metadata(file: pq.ParquetFile) -> dict[str, str]:
    raw = file.schema_arrow.metadata or {}
    # A flipped bit may leave text that is no UTF-8: it then equals nothing that is expected.
    return {key.decode(errors="replace"): value.decode(errors="replace") for key, value in raw.items()}


def _check_stamp(path: Path, metadata: Mapping[str, str], kind: str) -> None:
    version, found = metadata.get(_VERSION_KEY), metadata.get(_KIND_KEY, CERTIFICATION.name)
    if version is None:
        raise RecordError(f"{path}: a Parquet file, but not one of {kind} records (no {_VERSION_KEY})")
    if version != str(SCHEMA_VERSION):
        raise RecordError(
            f"{path}: schema version {version}, this version of the package reads {SCHEMA_VERSION}; "
            "read it with the version that wrote it, or certify again"
        )
    if found != kind:
        raise RecordError(f"{path}: holds records of kind {found!r}, expected {kind!r}")


def _check_columns(path: Path, found: pa.Schema, kind: RecordKind, *, encoded: Sequence[str]) -> None:
    for field in kind.schema:
        if field.name not in found.names:
            raise RecordError(f"{path}: column {field.name!r} is missing")
        type_found = found.field(field.name).type
        if field.name in encoded and pa.types.is_dictionary(type_found):
            type_found = type_found.value_type
        if not type_found.equals(field.type):
            raise RecordError(f"{path}: column {field.name!r} has type {type_found}, expected {field.type}")


def _differences(found: str | None, expected: str) -> str:
    if found is None:
        return "everything (it has none)"
    try:
        ours, theirs = json.loads(expected), json.loads(found)
    except ValueError:
        return "everything (it is damaged)"
    if not isinstance(theirs, dict):
        return "everything (it is damaged)"
    return differences(theirs, ours)
