"""Failures of units, recorded where the next launch and the status command find them."""

import contextlib
import errno
import logging
import os
import re
import shutil
import socket
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from jobs.atomic import NO_ROOM, listing, read_json, write_json
from jobs.errors import CheckpointError, ConfigError, DataError, RecordError, TrainingDivergedError
from jobs.files.store import Store
from jobs.host import is_first_task
from jobs.specs.units import Unit

FailureClass = Literal[
    "cuda_oom",
    "host_oom",
    "disk_full",
    "timeout",
    "preempted",
    "stalled",
    "node_fail",
    "setup",
    "data",
    "config",
    "bug",
    "unknown",
]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a unit ran."""

    host: str = ""  # the node
    gpus: str = ""  # CUDA_VISIBLE_DEVICES there
    job: str = ""  # the SLURM job and array task, as 1234_56; empty elsewhere

    @classmethod
    def here(cls) -> "Place":
        """Where this process runs."""
        array_id, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        return Place(
            host=os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
            gpus=os.environ.get("CUDA_VISIBLE_DEVICES", ""),
            job=f"{array_id}_{index}" if array_id and index else "",
        )


@dataclass(frozen=True, kw_only=True)
class Failure(Place):
    """One failed attempt at a unit."""

    unit: str  # the unit's name
    failure_class: FailureClass  # the class
    message: str  # the last line of the error
    traceback: str = ""  # empty if the process died without one
    log_path: str = ""  # the unit's log
    attempt: int  # 1 for the first failure of the unit, and so on
    time: float  # seconds since the epoch
    # How often the unit had failed before, by class; None in records of earlier versions
    earlier: Mapping[FailureClass, int] | None = None

    @property
    def counts(self) -> Counter[FailureClass]:
        """How often the unit has failed so far, by class."""
        return Counter(self.earlier) + Counter([self.failure_class])


def following(failure: Failure, last: Failure) -> Failure:
    """The failure with the counts of the unit's earlier failures."""
    return replace(failure, attempt=last.attempt + 1, earlier=dict(last.counts))


_BROKEN_GPU = (
    r"CUDA error: (uncorrectable ECC|no CUDA-capable device|unspecified launch failure|all CUDA-capable devices"
    r"|unknown error|initialization error|CUDA-capable device\(s\) is/are busy|CUDA driver version is insufficient)"
    r"|NVLink|GPU is lost|Found no NVIDIA driver|No CUDA GPUs are available"
)
# What torch's own allocator does not ask for: contexts, handles, pinned memory, CUDA graphs, NCCL's buffers.
_FULL_GPU = r"CUDA error: out of memory|CU(BLAS|DNN)_STATUS_\w*ALLOC\w*_FAILED|Cuda failure \d+ 'out of memory'"

# The first whose types and pattern an exception and its message match.
_CLASSES: Sequence[tuple[FailureClass, tuple[type[BaseException], ...], str]] = (
    ("cuda_oom", (RuntimeError,), _FULL_GPU),
    ("node_fail", (RuntimeError,), _BROKEN_GPU),
    # Another process of one training died.
    ("unknown", (RuntimeError,), r"Connection (closed|reset) by (remote )?peer"),
    ("host_oom", (MemoryError,), ""),
    ("data", (RecordError, CheckpointError, DataError, TrainingDivergedError, OSError), ""),
    ("config", (ConfigError,), ""),
    ("setup", (ImportError,), ""),  # something is missing on this node
)


def classify(error: BaseException) -> FailureClass:
    """The class of an exception that ended a unit."""
    if type(error).__name__ == "OutOfMemoryError":  # torch's; by name, since torch may not be imported here
        return "cuda_oom"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk_full"
    matching = (name for name, types, text in _CLASSES if isinstance(error, types) and re.search(text, str(error)))
    return next(matching, "bug")


def record_exception(store: Store, unit: Unit, error: BaseException, message: str, log_path: Path) -> Failure:
    """Record that a unit ended with an exception, with the given message."""
    failure_class = classify(error)
    if failure_class == "cuda_oom":  # the options that reduce the memory of a unit and do not change a key
        batch = "" if unit.stage == "train" else "reduce cluster.batch_size; "
        message = f"{message.rstrip()}\n{batch}reduce cluster.runs_per_gpu if it is above 1"
    failure = failure_now(store, unit, failure_class, message, log_path)
    return _recorded(store, unit, replace(failure, traceback="".join(traceback.format_exception(error))))


def record_death(
    store: Store, unit: Unit, failure_class: FailureClass, message: str, log_path: Path, *, place: Place | None = None
) -> Failure:
    """Record that a unit's process ended silently, here or at the ``place`` given; of several tasks the first does."""
    free = shutil.disk_usage(store.root).free if store.root.exists() else NO_ROOM
    if failure_class == "unknown" and free < NO_ROOM:  # the process could not even write why it failed
        failure_class, message = "disk_full", f"{message}; the disk of {store.root} has {free // 1024} KB free"
    failure = failure_now(store, unit, failure_class, message, log_path, place)
    return _recorded(store, unit, failure) if is_first_task() else failure


def failures_of(store: Store, unit: Unit) -> list[Failure]:
    """All recorded failures of a unit, the oldest first."""
    return [_read(path, unit.name) for path in sorted(_paths(store, unit))]


def last_failure(store: Store, unit: Unit) -> Failure | None:
    return last_failures(_folder(store, unit), lambda name: name == unit.name).get(unit.name)


_STEM = re.compile(r"(?P<stage>train|aggregate|certify|attack)(?:-(?P<key>.+)-(?P<shard>\d+-\d+-\d+))?")


def last_failures(folder: Path, is_wanted: Callable[[str], bool]) -> dict[str, Failure]:
    """The last failure of each unit of ``Store.failures_dir`` or ``grid_failures_dir``, by the unit's name.

    One listing, and one file for each unit whose name is wanted. The file counts the earlier failures; where it does
    not, all are read.
    """
    attempts: dict[str, list[str]] = {}
    for file_name in listing(folder):
        stem, separator, _ = file_name.rpartition("-attempt-")
        if separator and file_name.endswith(".json"):
            attempts.setdefault(stem, []).append(file_name)
    found = {}
    for match in filter(None, map(_STEM.fullmatch, attempts)):
        model = "" if match["stage"] == "aggregate" else folder.parent.name
        name = "/".join(filter(None, [match["stage"], model, match["key"], match["shard"]]))
        if is_wanted(name):
            *others, newest = sorted(attempts[match[0]])
            failure = _read(folder / newest, name)
            if failure.earlier is None:
                earlier = Counter(_read(folder / other, name).failure_class for other in others)
                failure = replace(failure, earlier=dict(earlier))
            found[name] = failure
    return found


def forget(store: Store, unit: Unit) -> None:
    """Remove the failure records of a unit that succeeded."""
    if is_first_task():
        for path in _paths(store, unit):
            with contextlib.suppress(OSError):
                path.unlink()


def _paths(store: Store, unit: Unit) -> Iterator[Path]:
    return _folder(store, unit).glob(f"{_stem(unit)}-attempt-*.json")


def _read(path: Path, unit: str) -> Failure:
    try:
        return Failure(**read_json(path))
    except (TypeError, ValueError):  # damaged, or of another version; it still counts as a failed attempt
        return Failure(
            unit=unit,
            failure_class="unknown",
            message=f"{path}: this record of a failure cannot be read; remove it",
            attempt=int(path.stem.rpartition("-")[2]),
            time=path.stat().st_mtime,
        )


def _recorded(store: Store, unit: Unit, failure: Failure) -> Failure:
    try:
        write_json(_folder(store, unit) / f"{_stem(unit)}-attempt-{failure.attempt:04d}.json", asdict(failure))
    except OSError:  # such as a full disk, which may be the failure itself
        logging.exception("cannot record the failure of %s", unit.name)
    return failure


def failure_now(
    store: Store, unit: Unit, failure_class: FailureClass, message: str, log_path: Path, place: Place | None = None
) -> Failure:
    """A failure of a unit that is not recorded yet; at this process's place, or at the ``place`` given."""
    failure = Failure(
        **asdict(place or Place.here()),
        unit=unit.name,
        failure_class=failure_class,
        message=message,
        log_path=str(log_path),
        attempt=1,
        time=time.time(),
        earlier={},
    )
    last = last_failure(store, unit)
    return failure if last is None else following(failure, last)


def _folder(store: Store, unit: Unit) -> Path:
    return store.grid_failures_dir(unit.grid) if unit.train is None else store.failures_dir(unit.train.key)


def _stem(unit: Unit) -> str:
    return "-".join([unit.stage, *unit.name.split("/")[2:]])
