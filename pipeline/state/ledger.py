"""What was handed to SLURM, written down before it is: which task of which array runs which units.

An array is found in the queue by its name, which leads to its folder. So nothing is lost when a
launch dies between handing an array over and hearing its number.

    results/grids/GRID/slurm/LAUNCH/launch.json      options, frozen
    results/grids/GRID/slurm/LAUNCH/grid.json        the grid, frozen
    results/grids/GRID/slurm/LAUNCH/ARRAY/tasks.json units of each task; beside it script and logs
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from jobs.atomic import listing, read_json, write_json
from jobs.files.manifest import read_manifest, write_manifest
from jobs.files.store import Store
from jobs.specs.runs import Manifest
from jobs.specs.units import Resources, Stage, Unit, unit_named

_NAME = re.compile(
    r"(?P<grid>.+)\.(?P<launch>\d{8}-\d{6}-[0-9a-f]{6})\.(?P<array>(train|certify|attack|aggregate)-\d+)"
)
_LOG = re.compile(r"(\d+)_(\d+)_0_log\.out")


@dataclass(frozen=True, kw_only=True)
class ArrayName:
    """Names an array in the queue and in the store.

    Attributes:
        grid: Of the grid.
        launch: Of the launch: its time and something random.
        array: Stage and number within the launch.
    """

    grid: str
    launch: str
    array: str

    def __str__(self) -> str:
        return f"{self.grid}.{self.launch}.{self.array}"

    @property
    def stage(self) -> Stage:
        """What its tasks do."""
        return cast(Stage, self.array.partition("-")[0])

    @classmethod
    def parse(cls, job_name: str) -> ArrayName | None:
        """The name that ``str`` gave, None if it is no such name."""
        match = _NAME.fullmatch(job_name)
        return cls(grid=match["grid"], launch=match["launch"], array=match["array"]) if match else None


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What all tasks of a launch need to know, as it was when they were submitted.

    Attributes:
        manifest: The grid.
        resources: How units may run.
        time_limits_min: Of a task, by stage.
        grace_s: Between SLURM's warning and its kill.
        runs_per_gpu: Units that a task runs at a time.
    """

    manifest: Manifest
    resources: Resources
    time_limits_min: dict[str, int]
    grace_s: int
    runs_per_gpu: int = 1


def new_launch_id() -> str:
    """Sorts by time; unique."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"


def write_launch(store: Store, launch_id: str, launch: Launch) -> None:
    """Freeze what a launch hands over."""
    folder = store.launch_dir(launch.manifest.grid, launch_id)
    write_manifest(folder / "grid.json", launch.manifest)
    plain = asdict(launch)
    del plain["manifest"]
    write_json(folder / "launch.json", plain)


def read_launch(folder: Path) -> Launch:
    """What ``write_launch`` wrote into the folder of a launch."""
    plain = read_json(folder / "launch.json")
    resources = Resources(**plain.pop("resources"))
    return Launch(manifest=read_manifest(folder / "grid.json"), resources=resources, **plain)


def locate(array_dir: Path) -> tuple[Store, ArrayName]:
    """The results folder and the name of the array that belong to a folder of ``write_tasks``."""
    *_, grid, _, launch, array = array_dir.parts
    store, name = Store(array_dir.parents[4]), ArrayName(grid=grid, launch=launch, array=array)
    assert store.array_dir(grid, launch, array) == array_dir, array_dir
    return store, name


def write_tasks(store: Store, name: ArrayName, tasks: list[list[str]]) -> Path:
    """Write down the units of each task of an array that is about to be submitted; its folder."""
    path = store.tasks_path(name.grid, name.launch, name.array)
    write_json(path, {"tasks": tasks})
    return path.parent


def read_tasks(store: Store, name: ArrayName) -> list[list[str]] | None:
    """The unit names of each task of an array; None where this store knows no such array."""
    path = store.tasks_path(name.grid, name.launch, name.array)
    return cast(list[list[str]], read_json(path)["tasks"]) if path.exists() else None


def units_of_task(store: Store, name: ArrayName, index: int, manifest: Manifest) -> list[Unit]:
    """The units of one task, of the grid as it was frozen."""
    tasks: Any = read_tasks(store, name)
    return [unit_named(unit, manifest) for unit in tasks[index]]


def arrays_of(store: Store, grid: str) -> Iterator[ArrayName]:
    """All arrays that were ever submitted for a grid, those of the latest launch first."""
    for launch in sorted(listing(store.launches_dir(grid)), reverse=True):
        for array in sorted(listing(store.launch_dir(grid, launch))):
            name = ArrayName.parse(f"{grid}.{launch}.{array}")
            if name is not None:
                yield name


def slurm_logs(store: Store, name: ArrayName) -> dict[int, tuple[str, Path]]:
    """What SLURM and the supervisor logged, by task: job as 1234_56, and path. Only tasks that began have one."""
    folder = store.array_dir(name.grid, name.launch, name.array)
    found = {}
    for file_name in sorted(listing(folder)):
        match = _LOG.fullmatch(file_name)
        if match:
            found[int(match[2])] = (f"{match[1]}_{match[2]}", folder / file_name)
    return found
