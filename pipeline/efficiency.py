"""python -m pipeline.efficiency grid=NAME: what jobs requested, what units used, and what to request."""

if __name__ == "__main__":  # before the imports below: neither --help nor Ctrl-C waits for them
    from configs.entry import run_entry

    run_entry("efficiency", "pipeline.efficiency")

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from jobs.files.manifest import GridOptions
from jobs.files.store import Store
from jobs.processes.usage import Usage, read_usage
from jobs.specs.units import STAGES, Stage
from jobs.validation import build
from jobs.wording import say
from pipeline.state.ledger import arrays_of, asked_for

_MEMORY_MARGIN, _TIME_MARGIN = 1.25, 1.5
"""The advised value is this factor times the maximum used."""


def efficiency(values: Mapping[str, Any]) -> int:
    """Print what units used and jobs requested; returns the exit code. Raises ConfigError if there is no such grid."""
    store, manifest = build(GridOptions, values, where="").open()
    grid = manifest.grid
    rows, advice = [], list[str]()
    for stage in STAGES:
        used = [usage for path in _logs(store, grid, stage) if (usage := read_usage(path)) is not None]
        if used:
            asked, most = _asked(store, grid, stage), _most(used)
            gpu = max((unit.gpu_memory_gb / unit.gpu_total_gb for unit in used if unit.gpu_total_gb), default=None)
            parts = [_part(value, asked.get(name)) for name, value in most.items()]
            rows.append([stage, len(used), *parts, None if gpu is None else f"{gpu:.0%}"])
            advice += _advice(stage, most, asked)
    if not rows:
        say(f"grid {grid}: no usage was recorded yet; units record it when they run")
        return 0
    headers = ["stage", "units", "memory (GB)", "CPUs", "minutes", "GPU memory"]
    say(f"grid {grid}: the maximum that one unit used, of what its job requested")
    say(tabulate(rows, headers=headers, disable_numparse=True, missingval="-"))
    say("advice: " + (" ".join(advice) or "nothing to change"))
    return 0


def _logs(store: Store, grid: str, stage: Stage) -> Iterator[Path]:
    path = store.log_path(grid, stage)
    yield from path.with_suffix("").rglob("*.log")
    if path.exists():
        yield path


def _asked(store: Store, grid: str, stage: Stage) -> Mapping[str, Any]:
    """What the last launch requested; empty if there was none, or an earlier version made it."""
    names = (name for name in arrays_of(store, grid) if name.stage == stage)
    return next((asked for name in names if (asked := asked_for(store, name)) is not None), {})


def _part(used: float, requested: float | list[float] | None) -> str:
    """For example "7.9 of 16"; a list holds the values after each failure."""
    values = requested if isinstance(requested, list) else [] if requested is None else [requested]
    return " of ".join(filter(None, [f"{used:.3g}", ", ".join(f"{value:g}" for value in values)]))


def _advice(stage: Stage, most: Mapping[str, float], asked: Mapping[str, Any]) -> Iterator[str]:
    """Options that request less than before, or more if the maximum used came near the request."""
    wanted = {
        "mem_gb": math.ceil(_MEMORY_MARGIN * most["mem_gb"]),
        "cpus": math.ceil(most["cpus"] - 0.1) or 1,
        "time_min": math.ceil(_TIME_MARGIN * most["time_min"]) + 5,
    }
    for name, value in wanted.items():
        given = asked.get(name)
        if isinstance(given, (int, float)) and value != given:
            yield f"cluster.{stage}.{name}={value}"


def _most(used: Sequence[Usage]) -> dict[str, float]:
    """The most that one unit used, by the names of the options that request it."""
    return {
        "mem_gb": max(unit.memory_gb for unit in used),
        "cpus": max(unit.cpu_s / max(unit.wall_s, 0.1) for unit in used),
        "time_min": max(unit.wall_s for unit in used) / 60,
    }
