"""Checks all records of a grid and joins them in one file."""

import itertools
import json
import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.atomic import NOT_THERE, Damage, problem_of, remove_stale_temporaries, set_aside
from jobs.datasets import CONTENT, differ, short_fingerprint
from jobs.errors import RecordError
from jobs.files import records
from jobs.files.layouts import KINDS, Layout, layout_of
from jobs.files.manifest import read_manifest
from jobs.files.store import Store
from jobs.files.summary import SUMMARY_KEY, Summary, summary_of, total
from jobs.specs.indices import IndexRange, missing_from
from jobs.specs.runs import LISTS, Manifest, Run, ShardStage
from jobs.specs.units import AggregateUnit, Resources

FINGERPRINT_KEY = "grid_fingerprint"


def run(unit: AggregateUnit, store: Store, resources: Resources) -> None:
    """Write the records of all runs of a grid, one file for each stage, sorted by run and index.

    Raises:
        RecordError: Something is missing, there twice, damaged or of other parameters; names all
            of it. Damaged and foreign shards are set aside, so that the next launch redoes them.
    """
    del resources  # reading and writing files needs none
    manifest = read_manifest(store.manifest_path(unit.grid))
    images, problems = Images(), list[str]()
    for stage in LISTS:
        try:
            _aggregate(stage, manifest, store, images)
        except RecordError as error:
            problems.append(str(error))
    if problems:
        raise RecordError("\n".join(problems))
    for grid_run in manifest.runs:  # left by shards that were killed after their last image
        store.remove_served_partials(grid_run.place)


def _aggregate(stage: ShardStage, manifest: Manifest, store: Store, images: "Images") -> None:
    """Write the records of a stage's runs into one file, unless there are problems; adds to ``images``."""
    runs, path = manifest.of(stage), store.records_path(manifest.grid, stage)
    if not runs:
        return
    provenance, problems = dict[str, dict[str, str]](), list[str]()
    metadata = {"source": "aggregate", FINGERPRINT_KEY: manifest.fingerprint}

    def tables() -> Iterator[pa.Table]:
        for grid_run in runs:
            name = grid_run.keys
            try:
                provenance[name] = yield from run_tables(
                    grid_run, store, lambda path, _: f"; moved to {set_aside(path).name}"
                )
            except RecordError as error:
                problems.append(str(error))
                continue
            problems.extend(other_images(grid_run, provenance[name], images))
        if problems:
            raise RecordError("\n".join(problems))
        metadata["runs"] = json.dumps(provenance)

    remove_stale_temporaries(path.parent)
    records.write_records(path, tables(), metadata, KINDS[stage])
    logging.info("%d records of %d runs: %s", records.num_rows(path), len(runs), path)


Images = dict[tuple[str, str, bool], tuple[str, str]]
"""The fingerprint of the images seen so far and the run that used them, by data set, split and kind of fingerprint."""


def other_images(grid_run: Run, origin: Mapping[str, str], images: Images) -> list[str]:
    """The problem, if any, that a run used other images than the runs before it; adds to ``images``."""
    name, found = grid_run.keys, known_images(origin)
    if not found:
        return []
    place = (grid_run.train.dataset, grid_run.task.split, found.startswith(CONTENT))
    first, other = images.setdefault(place, (found, name))
    if not differ(found, first):
        return []
    return [
        f"different images: {other} used those with fingerprint {short_fingerprint(first)}, but {name} those with "
        f"{short_fingerprint(found)}; remove the shards of one of the two and launch again with the images of "
        "the other"
    ]


def look_at_joined(manifest: Manifest, store: Store) -> tuple[bool, list[Damage]]:
    """Whether all aggregated files of a grid exist and were made for exactly this grid; and the damaged ones.

    Each process reads them only once.
    """
    is_done, damages = True, list[Damage]()
    for stage in {run.stage: None for run in manifest.runs}:
        path = store.records_path(manifest.grid, stage)
        problem = problem_of(path) or records.problem_in(path, KINDS[stage])
        is_done &= problem is None and is_current(path, manifest)
        damages += [] if problem is None or problem == NOT_THERE else [Damage(path, problem)]
    return is_done, damages


def is_current(path: Path, manifest: Manifest) -> bool:
    """Whether an aggregated file exists, is readable, and was made for exactly this grid."""
    if not path.exists():
        return False
    try:
        return records.read_metadata(path).get(FINGERPRINT_KEY) == manifest.fingerprint
    except RecordError:
        return False


def collect_run(grid_run: Run, store: Store) -> tuple[pa.Table, dict[str, str]]:
    """All records of one run at once, and the origin stated by its shards; otherwise like ``run_tables``."""
    origin: dict[str, str] = {}

    def tables() -> Iterator[pa.Table]:
        origin.update((yield from run_tables(grid_run, store)))

    schema = layout_of(grid_run).kind.schema
    return pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in tables())]), origin


Reject = Callable[[Path, str], str]
"""Called with a file that cannot be used and the reason; returns what was done about it, to complete the message."""


def run_tables(
    grid_run: Run, store: Store, reject: Reject = lambda *_: "", *, is_thorough: bool = False
) -> Generator[pa.Table, None, dict[str, str]]:
    """The records of one run by ascending index, shard by shard; strings as dictionaries.

    Images beyond the run's indices that were certified too are left out. ``reject`` is called with unusable
    shards. ``is_thorough``: see ``records.read_records``.

    Returns:
        At the end, the origin stated by all shards (checkpoint, packages, devices).

    Raises:
        RecordError: After the last of them: a gap, an index in two files, a damaged or foreign shard, or shards
            certified with different weights.
    """
    layout, wanted = layout_of(grid_run), grid_run.indices.array
    parts, problems, summaries = list[Part](), list[str](), list[Summary]()
    for neighbours in _entangled(store.finished_shards(grid_run.place)):
        tables = []
        for indices in neighbours:
            path = store.shard_path(grid_run.place, indices)
            try:
                table, metadata = _checked_shard(path, indices, layout, is_thorough)
            except RecordError as error:
                problems.append(f"{error}{reject(path, str(error))}; launch again to certify its images again")
                continue
            is_wanted = np.isin(indices.array, wanted)
            parts.append(Part(path, indices, metadata, bool(is_wanted.all())))
            tables.append(table if is_wanted.all() else table.filter(pa.array(is_wanted)))
            summaries.append(summary_of(tables[-1]))
        yield from tables if len(tables) < 2 else [pa.concat_tables(tables).unify_dictionaries().sort_by("index")]
    problems += _origin_problems(parts) + _overlap_problems(parts, reject)
    if not problems and (missing := missing_from(grid_run.indices, [part.indices for part in parts])):
        verb = "certified" if grid_run.stage == "certify" else "attacked"
        count = f"{len(missing)} of {len(grid_run.indices)}"
        problems = [f"{grid_run.keys}: {count} images are not {verb} (first: {missing[0]}); launch the grid again"]
    if problems:
        raise RecordError("\n".join(problems))
    return {**_common_origin(parts), SUMMARY_KEY: total(summaries).text}


class Part(NamedTuple):
    path: Path
    indices: IndexRange
    metadata: dict[str, str]
    is_wanted: bool  # all of it


def _entangled(shards: list[IndexRange]) -> Iterator[list[IndexRange]]:
    """Groups of shards by ascending index; shards whose indices interleave form one group."""
    together: list[IndexRange] = []
    for indices in shards:
        if together and indices.start >= max(one.stop for one in together):
            yield together
            together = []
        together.append(indices)
    yield together


def _checked_shard(
    path: Path, indices: IndexRange, layout: Layout, is_thorough: bool
) -> tuple[pa.Table, dict[str, str]]:
    """The rows and the metadata of a shard. Raises RecordError if it is damaged, or not what its place says."""
    metadata = records.check_metadata(path, layout.specs)
    table = records.read_records(path, layout.kind, layout.kind.schema.names, is_thorough=is_thorough)
    if not np.array_equal(table["index"].to_numpy(), indices.array):
        raise RecordError(f"{path}: its {len(table)} rows do not match the indices in its name ({indices})")
    for column, expected in layout.columns.items():
        values = pc.unique(table[column]).to_pylist()
        if values != [expected]:
            raise RecordError(f"{path}: mixed parameters, column {column!r} holds {values}, expected {expected!r}")
    return table, metadata


def _origin_problems(parts: list[Part]) -> list[str]:
    """Weights, images and files of plug-ins that differ between shards (or from their checkpoint)."""
    found: dict[str, dict[str, Path]] = {}
    for path, _, metadata, _ in parts:
        origins = {"weights": [metadata.get("checkpoint_sha256", "")], "images": [metadata.get("images", "")]}
        try:
            plugins = dict(json.loads(metadata.get("plugins", "{}")))
        except ValueError:  # a flipped bit
            plugins = {"unreadable": [metadata["plugins"]]}
        origins |= {f"files of the plug-in {package}": hashes for package, hashes in plugins.items()}
        for what, hashes in origins.items():
            for origin in hashes:
                found.setdefault(what, {}).setdefault(origin, path)
    problems = []
    for what, paths in found.items():
        if any(differ(one, other) for one, other in itertools.combinations(paths, 2)):
            listing = ", ".join(f"{path} ({origin[:12]})" for origin, path in paths.items())
            instead = "raise its VERSION, which starts a new run, or " if what not in ("weights", "images") else ""
            problems.append(
                f"shards of one run were certified with different {what}: {listing}; {instead}remove those made "
                f"with the old {what}"
            )
    return problems


def _overlap_problems(parts: list[Part], reject: Reject) -> list[str]:
    """Images in two files, as after two launches that cut shards differently. Records do not decide which file goes."""
    every = np.concatenate([np.empty(0, np.int64), *(part.indices.array for part in parts)])
    if (np.bincount(every) < 2).all():
        return []  # the usual case; what follows compares every file with all others
    images = {part.path: set(part.indices) for part in parts}
    by_size = sorted(images, key=lambda path: (len(images[path]), path))
    problems = []
    # First, files whose images are all in others, the largest first, so that as little as possible is redone.
    for paths, goes in ((by_size[::-1], set.issubset), (by_size, lambda own, others: not own.isdisjoint(others))):
        for path in [path for path in paths if path in images]:
            own, others = images[path], set[int]().union(*(theirs for key, theirs in images.items() if key != path))
            if own and goes(own, others):
                problem = f"{path}: {len(own & others)} images (first: {min(own & others)}) are also in other files"
                problems.append(f"{problem}{reject(path, problem)}; launch again")
                del images[path]
    return problems


def known_images(metadata: Mapping[str, str]) -> str:
    """The fingerprint of the images in the origin stated by a run's shards; empty if they do not state it."""
    found = metadata.get("images", "unknown")
    # Shards of one run that were made before and after fingerprints were over contents have one of each.
    return "" if found == "unknown" else max(found.split(", "), key=lambda part: part.startswith(CONTENT))


def _common_origin(parts: list[Part]) -> dict[str, str]:
    names = ("checkpoint_sha256", "images", "packages", "device", "git_commit")
    origin = {name: ", ".join(sorted({part.metadata.get(name, "unknown") for part in parts})) for name in names}
    for name in (records.CLEAN_CORRECT, records.CLEAN_SEEN):
        counts = [part.metadata.get(name, "") for part in parts if part.is_wanted]
        if len(counts) == len(parts) and all(map(str.isdecimal, counts)):  # older shards do not state it
            origin[name] = str(sum(map(int, counts)))
    return origin
