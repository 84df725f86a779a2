"""The lines that a job writes into SLURM's log: how they are written, and how they are parsed."""

import contextlib
import logging
import os
import re
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from jobs.files.failures import Place

_TAIL_BYTES = 1 << 18
_NUM_LAST_LINES = 5
_BEAT_S = 30.0
_JOB_BEGINS = re.compile(r"INFO job begins: (?P<array>\S+) task \d+ on (?P<host>\S+), job (?P<job>\S+), start \d+")
_BEGIN = re.compile(r"INFO begin (?P<unit>\S+) on (?P<host>\S+) gpus \[(?P<gpus>[^\]]*)\]")
_ENDED = re.compile(r"(?P<how>INFO end|ERROR failed|WARNING interrupted) (?P<unit>[^\s:]+)")
_PROGRESS = re.compile(r"(?P<idle>WARNING no progress since this start)|INFO (?:end|progress) ")
_SKIPPED = re.compile(r"WARNING (?:held back|skipped) (?P<unit>[^\s:]+)")
_LEVELS = {"end": logging.INFO, "failed": logging.ERROR, "interrupted": logging.WARNING, "skipped": logging.WARNING}

BEGAN_VARIABLE = "SMOOTHADV_JOB_BEGAN"
"""The variable with the start time of a job, in seconds since the epoch."""


def job_begins_line(array: str) -> str:
    """The line of the batch script that logs the start of the job, before anything that may end it."""
    return (
        f"export {BEGAN_VARIABLE}=$(date +%s); "
        f'echo "$(date +"%F %T") INFO job begins: "{shlex.quote(array)}" task $SLURM_ARRAY_TASK_ID '
        "on ${SLURMD_NODENAME:-$(hostname)}, job ${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}, "
        'start ${SLURM_RESTART_COUNT:-0}"'
    )


def say_error(text: str) -> str:
    """A command of the batch script that logs an error; the text may contain shell variables."""
    return f'echo "$(date +"%F %T") ERROR {text}"'


def unit_begins(unit: str, where: Place) -> None:
    logging.info("begin %s on %s gpus [%s]", unit, where.host, where.gpus)


def unit_is(event: Literal["end", "failed", "interrupted", "skipped"], unit: str, reason: str = "") -> None:
    logging.log(_LEVELS[event], "%s %s%s", event, unit, f": {reason}" if reason else "")


def start_without_progress() -> None:
    logging.warning("no progress since this start")


def num_idle_starts(path: Path) -> int:
    """How many of the last consecutive starts of a job ended without progress, by its log."""
    num_idle = 0
    with contextlib.suppress(OSError):
        for match in _PROGRESS.finditer(read_tail(path)):
            num_idle = num_idle + 1 if match["idle"] else 0
    return num_idle


def beat(path: Path) -> None:
    """Update the modification time of a job's log every 30 s, to show that the job runs."""
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > _BEAT_S:
            os.utime(path)


def is_beating(path: Path) -> bool:
    """Whether a job has updated the time of its log within three intervals."""
    return time.time() - path.stat().st_mtime < 3 * _BEAT_S


class LostUnit(NamedTuple):
    """A unit that began but did not log its end."""

    unit: str
    where: Place
    was_interrupted: bool  # it received a signal to stop and saved its work
    after: str  # the log after its start


@dataclass(frozen=True, kw_only=True)
class JobLog:
    """The last start of a job, as its log shows it."""

    text: str  # all lines from the first one of the batch script (older logs do not have that one)
    host: str | None  # the node; None if the batch script did not log it
    lost: tuple[LostUnit, ...]  # units that began but did not end
    num_units: int  # units that began or were skipped

    @property
    def last_lines(self) -> str:
        """Its last lines, except the first line of the job."""
        _, _, rest = self.text.partition("\n")
        lines = [line.strip() for line in rest.splitlines() if line.strip()]
        return "\n".join(lines[-_NUM_LAST_LINES:])


def read_job_log(path: Path, job: str) -> JobLog:
    """Read the last start in the log of a job, which has several after a requeue."""
    text = read_tail(path)
    starts = [*_JOB_BEGINS.finditer(text)]
    if starts:
        text = text[starts[-1].start() :]
    begins = {begin["unit"]: begin for begin in _BEGIN.finditer(text)}
    return JobLog(
        text=text,
        host=starts[-1]["host"] if starts else None,
        lost=tuple(unit for begin in begins.values() for unit in _lost(begin, text[begin.end() :], job)),
        num_units=len(begins) + len(_SKIPPED.findall(text)),
    )


def read_tail(path: Path) -> str:
    """The last part of a log."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        return file.read().decode(errors="replace")


def said_by_another(log_path: Path, unit: str) -> str | None:
    """The error that another task of the same job logged for a unit that they run together, if any."""
    for path in sorted(log_path.parent.glob(log_path.name.replace("_0_log.out", "_*_log.out"))):
        if said := re.findall(rf"ERROR (failed {re.escape(unit)}: .*)", read_tail(path)):
            return f"{said[-1]} ({path})"
    return None


def _lost(begin: re.Match[str], after: str, job: str) -> Iterator[LostUnit]:
    ended = [match["how"] for match in _ENDED.finditer(after) if match["unit"] == begin["unit"]]
    if not ended or ended[-1] == "WARNING interrupted":
        yield LostUnit(begin["unit"], Place(host=begin["host"], gpus=begin["gpus"], job=job), bool(ended), after)
