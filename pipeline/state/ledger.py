"""Which task of which array runs which units, written before the array is submitted to SLURM.

The name of an array in the queue leads to its folder. So nothing is lost if a launch dies after
submitting an array and before learning its number.

    results/grids/GRID/slurm/LAUNCH/launch.json      options, frozen
    results/grids/GRID/slurm/LAUNCH/grid.json        the grid, frozen
    results/grids/GRID/slurm/LAUNCH/ARRAY/tasks.json units of each task; beside it script and logs
"""

import contextlib
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

from jobs.atomic import Damage, damage_of, listing, read_json, write_json
from jobs.files.folders import only_owner_writes
from jobs.files.manifest import read_manifest, write_manifest
from jobs.files.store import Store
from jobs.specs.runs import Manifest
from jobs.specs.units import Resources, Stage, Unit, unit_named

_ARRAY = r"(?P<array>(?:train|certify|attack|aggregate)-\d+)"
_LAUNCH = r"(?P<launch>\d{6}-[0-9a-f]{6}|\d{8}-\d{6}-[0-9a-f]{6})"  # the second form is that of earlier versions
_NAME = re.compile(rf"{_ARRAY}\.(?P<grid>.+)\.{_LAUNCH}")
_EARLIER_NAME = re.compile(rf"(?P<grid>.+)\.{_LAUNCH}\.{_ARRAY}")
_LOG = re.compile(r"(\d+)_(\d+)_0_log\.out")


class ArrayName(NamedTuple):
    """Identifies an array in the queue and in the store."""

    grid: str
    launch: str  # the number of the launch for the grid, and random digits
    array: str  # stage and number within the launch

    def __str__(self) -> str:
        """The name in the queue; squeue shows its beginning."""
        return f"{self.array}.{self.grid}.{self.launch}"

    @property
    def stage(self) -> Stage:
        """The stage of its units."""
        return cast(Stage, self.array.partition("-")[0])

    @classmethod
    def parse(cls, job_name: str) -> "ArrayName | None":
        """Parse what ``str`` gave, in this or an earlier version; None for any other name."""
        match = _NAME.fullmatch(job_name) or _EARLIER_NAME.fullmatch(job_name)
        return cls(**match.groupdict()) if match else None


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Settings that all tasks of a launch need, frozen when they were submitted."""

    manifest: Manifest
    resources: Resources  # how units may run
    grace_s: int  # from SLURM's warning until running units are killed
    runs_per_gpu: int = 1  # units that a task runs at a time
    cluster: str | None = None  # the cluster it was submitted to; None for the default one
    signal_delay_s: int = 120  # seconds before the time limit at which SLURM warns the job
    # Minutes without progress after which a unit is ended and its job requeued; None: never
    stall_min: float | None = None
    # What a job of each stage requests, by the names of the options
    asked: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def new_launch_id(store: Store, grid: str) -> str:
    """A unique id that counts the launches of a grid, since the clocks of two login nodes may differ."""
    last = max((_order(launch) for launch in listing(store.launches_dir(grid))), default=(0, ""))[0]
    return f"{last + 1:06d}-{uuid.uuid4().hex[:6]}"


def _order(launch: str) -> tuple[int, str]:
    """A sort key: launches by their number, after those of earlier versions by their time."""
    number = launch.partition("-")[0]
    return (int(number) if len(number) == 6 and number.isdigit() else 0, launch)


def write_launch(store: Store, launch_id: str, launch: Launch) -> None:
    """Write the settings of a launch."""
    folder = store.launch_dir(launch.manifest.grid, launch_id)
    write_manifest(folder / "grid.json", launch.manifest)
    write_json(folder / "launch.json", {name: value for name, value in asdict(launch).items() if name != "manifest"})
    only_owner_writes(folder, folder / "grid.json", folder / "launch.json")


def read_launch(folder: Path) -> Launch:
    """Read the settings in the folder of a launch."""
    plain = read_json(folder / "launch.json")
    resources = Resources(**plain.pop("resources"))
    return Launch(manifest=read_manifest(folder / "grid.json"), resources=resources, **plain)


def asked_for(store: Store, name: ArrayName) -> Mapping[str, Any] | None:
    """What the jobs of an array requested; None if an earlier version did not record it."""
    path = store.launch_dir(name.grid, name.launch) / "launch.json"
    try:
        return cast(Mapping[str, Any], read_json(path)["asked"][name.stage])
    except (OSError, ValueError, KeyError):
        return None


def damages(store: Store, grid: str) -> list[Damage]:
    """The damaged files of a grid's launches; their units count as never submitted."""
    folders = [store.launch_dir(grid, launch) for launch in listing(store.launches_dir(grid))]
    paths = [path for folder in folders for path in (*folder.glob("*.json"), *folder.glob("*/tasks.json"))]
    return [damage for path in paths for damage in damage_of(path)]


def launched_by(store: Store) -> tuple[set[str | None], set[int]]:
    """The clusters that launches into a results folder were submitted to, and the ids of the users who launched."""
    clusters, users = set[str | None](), set[int]()
    for path in store.root.glob("grids/*/slurm/*/launch.json"):
        with contextlib.suppress(OSError, ValueError):  # it was removed meanwhile, or is damaged
            clusters.add(read_json(path).get("cluster"))
            users.add(path.stat().st_uid)
    return clusters, users


def locate(array_dir: Path) -> tuple[Store, ArrayName]:
    """The results folder and the name of the array of a folder that ``write_tasks`` returned."""
    *_, grid, _, launch, array = array_dir.parts
    store, name = Store(array_dir.parents[4]), ArrayName(grid, launch, array)
    assert store.array_dir(*name) == array_dir, array_dir
    return store, name


def write_tasks(store: Store, name: ArrayName, tasks: list[list[str]], limit_min: int) -> Path:
    """Write the units of each task of an array before it is submitted, and their time limit; returns its folder."""
    path = store.tasks_path(*name)
    write_json(path, {"tasks": tasks, "time_limit_min": limit_min})
    only_owner_writes(path.parent, path)
    return path.parent


def read_tasks(store: Store, name: ArrayName) -> list[list[str]] | None:
    """The unit names of each task of an array; None if this store does not have it or its file is damaged."""
    try:
        return cast(list[list[str]], read_json(store.tasks_path(*name))["tasks"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def read_task(array_dir: Path, index: int, launch: Launch) -> tuple[list[Unit], int]:
    """The units of one task, and its time limit in minutes."""
    plain = read_json(array_dir / "tasks.json")
    return [unit_named(unit, launch.manifest) for unit in plain["tasks"][index]], plain["time_limit_min"]


def arrays_of(store: Store, grid: str) -> Iterator[ArrayName]:
    """All arrays that were submitted for a grid, those of the latest launch first."""
    for launch in sorted(listing(store.launches_dir(grid)), key=_order, reverse=True):
        for array in sorted(listing(store.launch_dir(grid, launch))):
            if name := ArrayName.parse(f"{array}.{grid}.{launch}"):
                yield name


def slurm_logs(store: Store, name: ArrayName) -> dict[int, tuple[str, Path]]:
    """The job (1234_56) and the SLURM log of each task, by its index. Only tasks that began have one."""
    folder = store.array_dir(*name)
    logs = filter(None, map(_LOG.fullmatch, sorted(listing(folder))))
    return {int(log[2]): (f"{log[1]}_{log[2]}", folder / log[0]) for log in logs}
