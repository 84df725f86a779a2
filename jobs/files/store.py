"""All paths in the results folder, and what folder listings show to be done.

No other module composes a path. ``results/README.md`` shows the tree.
"""

import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from jobs.atomic import NOT_THERE, Damage, damage_of, listing, problem_of
from jobs.specs.indices import IndexRange, Indices, missing_from, shard_stem
from jobs.specs.runs import Place, ShardStage

_SHARD_NAME = re.compile(r"(\d+)-(\d+)-(\d+)(\.partial)?\.parquet")
_STATE_NAME = re.compile(r"epoch-(\d+)\.pt")


def command_arguments(grid: object, results: Path) -> str:
    """The arguments of a command for a grid and its results folder, which is left out if it is the default."""
    folder = str(results)
    return f"grid={grid}" if folder == "results" else f"grid={grid} results={shlex.quote(folder)}"


def _in_root(name: str) -> Callable[["Store"], Path]:
    return lambda store: store.root / name


def _in_run(name: str) -> Callable[["Store", str], Path]:
    """What a store calls a file or folder of a run, by the train key."""
    return lambda store, train_key: store.run_dir(train_key) / name


def _in_grid(name: str) -> Callable[["Store", str], Path]:
    """What a store calls a file or folder of a grid, by its name."""
    return lambda store, grid: store.grid_dir(grid) / name


@dataclass(frozen=True)
class Store:
    """All paths below one results folder."""

    root: Path  # the results folder

    data_dir = _in_root("data")  # records of which datasets were prepared
    checksums_path = _in_root("SHA256SUMS")  # if it exists, the folder is a publication
    launch_lock_path = _in_root(".launch.lock")

    def source_path(self, sha256: str) -> Path:
        """The copy of a published checkpoint, named by the hash of its content."""
        return self.root / "checkpoints" / f"{sha256}.pth.tar"

    # Runs: one folder per base classifier, shared by all grids that contain it.

    def run_dir(self, train_key: str) -> Path:
        return self.root / "runs" / train_key

    spec_path = _in_run("spec.json")
    checkpoint_path = _in_run("checkpoint.pt")
    weights_path = _in_run("model.safetensors")  # in a publication; ``config_path`` has the rest of the checkpoint
    config_path = _in_run("config.json")
    epochs_path = _in_run("epochs.parquet")
    state_dir = _in_run("state")
    failures_dir = _in_run("failures")

    def state_path(self, train_key: str, epoch: int) -> Path:
        return self.state_dir(train_key) / f"epoch-{epoch:04d}.pt"

    def shards_dir(self, place: Place) -> Path:
        """The folder of the shards of one certification or one attack."""
        return self.run_dir(place.train_key) / place.stage / place.key

    def shard_path(self, place: Place, indices: IndexRange) -> Path:
        return self.shards_dir(place) / f"{shard_stem(indices)}.parquet"

    def partial_path(self, place: Place, indices: IndexRange) -> Path:
        return self.shards_dir(place) / f"{shard_stem(indices)}.partial.parquet"

    # Grids: their settings and joined results.

    def grid_dir(self, grid: str) -> Path:
        return self.root / "grids" / grid

    manifest_path = _in_grid("grid.json")
    import_path = _in_grid("import.json")  # if it exists, the grid was imported from logs and not launched
    import_report_path = _in_grid("import-report.csv")
    predictions_path = _in_grid("predictions.parquet")
    report_path = _in_grid("report.html")
    tsv_dir = _in_grid("tsv")
    paper_dir = _in_grid("paper")
    grid_failures_dir = _in_grid("failures")
    envelope_dir = _in_grid("envelope")
    activity_path = _in_grid("activity.json")  # what a running launch reports: its running and waiting units
    launches_dir = _in_grid("slurm")

    def records_path(self, grid: str, stage: ShardStage = "certify") -> Path:
        """The joined records of a stage's runs."""
        return self.grid_dir(grid) / ("records.parquet" if stage == "certify" else f"{stage}_records.parquet")

    def log_path(self, grid: str, unit_name: str) -> Path:
        return self.grid_dir(grid) / "logs" / f"{unit_name}.log"

    # SLURM: what was submitted, by launch. An array's folder holds its script and its logs.

    def launch_dir(self, grid: str, launch: str) -> Path:
        return self.launches_dir(grid) / launch

    def array_dir(self, grid: str, launch: str, array: str) -> Path:
        return self.launch_dir(grid, launch) / array

    def tasks_path(self, grid: str, launch: str, array: str) -> Path:
        """Which units each task of an array runs."""
        return self.array_dir(grid, launch, array) / "tasks.json"

    def code_dir(self, digest: str) -> Path:
        """A copy of the code of this package, which submitted jobs run."""
        return self.root / "code" / digest

    def has_slurm_launches(self) -> bool:
        return any(self.root.glob("grids/*/slurm"))

    def code_copies(self) -> list[Path]:
        return sorted((self.root / "code").glob("[!.]*"))

    def activity_paths(self) -> list[Path]:
        return sorted(self.root.glob("grids/*/activity.json"))

    # What exists. Each of these lists one folder and reads the end of files that must be whole.

    def is_trained(self, train_key: str) -> bool:
        return problem_of(self.checkpoint_path(train_key)) is None

    def model_damages(self, train_key: str) -> list[Damage]:
        """The damaged files of a model, including states that a finished training left behind."""
        paths = [self.checkpoint_path(train_key), self.spec_path(train_key), self.epochs_path(train_key)]
        paths += [self.state_path(train_key, epoch) for epoch in self.saved_epochs(train_key)]
        return [damage for path in paths for damage in damage_of(path)]

    def finished_shards(self, place: Place) -> list[IndexRange]:
        """The index ranges of finished shard files, sorted; damaged files do not count."""
        return self.shards(place)[0]

    def shards(self, place: Place) -> tuple[list[IndexRange], list[Damage]]:
        """``finished_shards``, and the damaged shards, finished or not."""
        folder, whole, damages = self.shards_dir(place), [], []
        for match in _matches(folder, _SHARD_NAME):
            path = folder / match.string
            problem = problem_of(path)
            if problem is None:
                whole.append(match)
            elif problem != NOT_THERE:  # otherwise removed meanwhile
                damages.append(Damage(path, problem))
        return _ranges(match for match in whole if not match[4]), damages

    def unfinished(self, place: Place, indices: Indices) -> list[int]:
        """The given indices that no finished shard contains, however shards were cut; ascending."""
        return missing_from(indices, self.finished_shards(place))

    def partial_shards(self, place: Place) -> list[IndexRange]:
        """The index ranges of shards that are in progress or were interrupted, sorted."""
        return _ranges(match for match in _matches(self.shards_dir(place), _SHARD_NAME) if match[4])

    def remove_served_partials(self, place: Place) -> None:
        """Remove unfinished files whose images are all in finished files now."""
        for partial in self.partial_shards(place):
            if not self.unfinished(place, partial):
                self.partial_path(place, partial).unlink(missing_ok=True)

    def saved_epochs(self, train_key: str) -> list[int]:
        """Epochs after which an unfinished training can resume, ascending."""
        return sorted(int(match[1]) for match in _matches(self.state_dir(train_key), _STATE_NAME))

    def grid_names(self) -> list[str]:
        """Grids that were launched into this folder, sorted."""
        return sorted(path.parent.name for path in self.root.glob("grids/*/grid.json"))

    def imported_names(self) -> list[str]:
        """Grids that were imported from logs, sorted."""
        return sorted(path.parent.name for path in self.root.glob("grids/*/import.json"))


def _ranges(names: Iterable[re.Match[str]]) -> list[IndexRange]:
    found = [tuple(map(int, name.groups()[:3])) for name in names]
    # Our writers never make such a name (an empty range), so it does not count.
    return sorted(IndexRange(start=a, stop=b, step=c) for a, b, c in found if a < b and c >= 1)


def _matches(folder: Path, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    return [match for name in listing(folder) if (match := pattern.fullmatch(name))]
