"""python -m pipeline.status grid=NAME: what is done, running, queued, failed, missing. Reads only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import filelock
from pydantic import Field
from pydantic.dataclasses import dataclass as strict_dataclass
from tabulate import tabulate

from configs.entry import run_entry
from jobs.atomic import read_json
from jobs.failures import Failure, failures_of
from jobs.indices import missing_from
from jobs.manifest import AttackRun, Manifest, Run, ShardedRun, open_grid
from jobs.store import Store
from jobs.units import AggregateUnit, AttackUnit, CertifyUnit, ShardUnit, TrainUnit, Unit
from jobs.validation import STRICT, build
from pipeline import report
from pipeline.observe import Observation, observe

State = Literal["done", "running", "queued", "failed", "missing"]
STATES: tuple[State, ...] = ("done", "running", "queued", "failed", "missing")


@dataclass(frozen=True, kw_only=True)
class Activity:
    """Names of the units that a launch at work has running and waiting; empty when there is none."""

    running: frozenset[str] = frozenset()
    queued: frozenset[str] = frozenset()

    def state_of(self, prefix: str) -> State | None:
        """The state of the units whose name begins with ``prefix``; running goes before queued."""
        for state, names in (("running", self.running), ("queued", self.queued)):
            if any(name.startswith(prefix) for name in names):
                return state  # type: ignore[return-value]
        return None


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """One model: the state of its training and of its certification."""

    run: Run
    train: State
    certify: State
    num_certified: int


@strict_dataclass(frozen=True, kw_only=True, config=STRICT)
class StatusConfig:
    """What to show; see configs/status.yaml."""

    grid: str | None
    results: Annotated[str, Field(min_length=1)]
    verbose: bool


def status(values: Mapping[str, Any]) -> int:
    """Print the state of a grid; returns the exit code.

    Raises:
        ConfigError: No such grid was launched into the results folder.
    """
    config = build(StatusConfig, values, where="status")
    store = Store(Path(config.results))
    manifest = open_grid(store, config.grid)
    observed, activity = observe(manifest, store), read_activity(store, manifest.grid)
    failures = _standing_failures(manifest, observed, store)
    runs = [_run_status(run, observed, activity, failures) for run in manifest.runs]
    print(f"grid {manifest.grid}: {len(manifest.runs)} models, results in {store.root}")
    print(_stage_table(manifest, observed, activity, failures, runs))
    if config.verbose:
        print(_run_table(runs))
    for failure in failures.values():
        print(report.failure_text(failure))
    return 0


def read_activity(store: Store, grid: str) -> Activity:
    """What a launch at work on this machine says it is doing."""
    path = store.activity_path(grid)
    if not path.exists() or not _is_locked(store.launch_lock_path()):
        return Activity()  # what a killed launch left behind means nothing
    try:
        content = read_json(path)
    except FileNotFoundError:  # the launch has ended meanwhile
        return Activity()
    return Activity(running=frozenset(content["running"]), queued=frozenset(content["queued"]))


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    lock.release()
    return False


def _standing_failures(manifest: Manifest, observed: Observation, store: Store) -> dict[str, Failure]:
    """The last failure of each unit that is not done, by unit name."""
    units: list[Unit] = [TrainUnit(train=run.train) for run in manifest.runs if run.train.key not in observed.trained]
    if not observed.aggregated:
        units.append(AggregateUnit(grid=manifest.grid))
    found = {unit.name: history[-1] for unit in units if (history := failures_of(store, unit))}
    for run in manifest.sharded:
        missing = set(_missing(run, observed))
        for unit in _failed_shards(run, store):
            if missing.intersection(unit.indices):
                found[unit.name] = failures_of(store, unit)[-1]
    return found


def _failed_shards(run: ShardedRun, store: Store) -> list[ShardUnit]:
    """The shards of a run that ever failed, as their failure records name them."""
    shards = store.failed_shards(run.train.key, run.key, run.stage)
    if isinstance(run, Run):
        return [CertifyUnit(run=run, indices=indices) for indices in shards]
    return [AttackUnit(run=run, indices=indices) for indices in shards]


def _missing(run: ShardedRun, observed: Observation) -> list[int]:
    return missing_from(run.indices, observed.finished(run))


def _attack_state(run: AttackRun, observed: Observation, activity: Activity, failures: Mapping[str, Failure]) -> State:
    if not _missing(run, observed):
        return "done"
    return _state(activity, failures, f"attack/{run.train.key}/{run.attack.key}/")


def _run_status(run: Run, observed: Observation, activity: Activity, failures: Mapping[str, Failure]) -> RunStatus:
    train_name, certify_prefix = f"train/{run.train.key}", f"certify/{run.train.key}/{run.certify.key}/"
    num_missing = len(_missing(run, observed))
    is_trained = run.train.key in observed.trained
    return RunStatus(
        run=run,
        train="done" if is_trained else _state(activity, failures, train_name),
        certify="done" if not num_missing else _state(activity, failures, certify_prefix),
        num_certified=len(run.indices) - num_missing,
    )


def _state(activity: Activity, failures: Mapping[str, Failure], prefix: str) -> State:
    under_way = activity.state_of(prefix)
    if under_way is not None:
        return under_way
    return "failed" if any(name.startswith(prefix) for name in failures) else "missing"


def _stage_table(
    manifest: Manifest,
    observed: Observation,
    activity: Activity,
    failures: Mapping[str, Failure],
    runs: list[RunStatus],
) -> str:
    by_model = {item.run.train.key: item.train for item in runs}
    aggregate = "done" if observed.aggregated else _state(activity, failures, AggregateUnit(grid=manifest.grid).name)
    attacks = Counter(_attack_state(run, observed, activity, failures) for run in manifest.attacks)
    rows = []
    for stage, states in (
        ("train", Counter(by_model.values())),
        ("certify", Counter(item.certify for item in runs)),
        ("attack", attacks),
        ("aggregate", Counter([aggregate])),
    ):
        if stage == "attack" and not attacks:
            continue
        rows.append([stage, states.total(), *(states[state] for state in STATES)])
    num_images = sum(len(item.run.indices) for item in runs)
    num_certified = sum(item.num_certified for item in runs)
    table = tabulate(rows, headers=["stage", "models", *STATES], intfmt=",")
    return f"{table}\nimages certified: {num_certified:,} of {num_images:,}"


def _run_table(runs: list[RunStatus]) -> str:
    rows = [
        (item.run.train.key, item.train, item.certify, f"{item.num_certified}/{len(item.run.indices)}") for item in runs
    ]
    return tabulate(rows, headers=["model", "train", "certify", "images"])


if __name__ == "__main__":
    run_entry("status", status)
