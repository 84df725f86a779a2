"""python -m pipeline.launch grid=NAME: do what is missing of a grid, and nothing else."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import filelock

from configs.entry import EXIT_FAILED, run_entry
from jobs.errors import RecordError
from jobs.manifest import Manifest, check_launchable, read_manifest, write_manifest
from jobs.store import Store
from jobs.units import Resources
from pipeline import report
from pipeline.config import ClusterConfig, LaunchConfig, check_writable, parse_launch
from pipeline.debug import DebugExecutor
from pipeline.executor import Executor
from pipeline.local import LocalExecutor
from pipeline.observe import observe
from pipeline.plan import plan
from pipeline.sources import bring_in, check_data

_LOCK_PATIENCE_S = 1.0  # a status looks at the lock for a moment


def launch(values: dict[str, Any]) -> int:
    """Launch the grid of a composed configuration; returns the exit code.

    Raises:
        ConfigError: The configuration cannot be run; nothing was written.
    """
    config = parse_launch(values)
    store = Store(config.results)
    check_launchable(store, config.manifest.grid)
    if config.dry_run:
        return _dry_run(config, store)
    check_data(config)
    check_writable(store.root)
    lock = filelock.FileLock(store.launch_lock_path())
    try:
        with lock.acquire(timeout=_LOCK_PATIENCE_S):
            return _launch_locked(config, store)
    except filelock.Timeout:
        print(
            f"error: another launch is at work in {store.root}; wait for it, or follow it with "
            f"python -m pipeline.status grid={config.manifest.grid} results={config.results}",
            file=sys.stderr,
        )
        return EXIT_FAILED


def _dry_run(config: LaunchConfig, store: Store) -> int:
    manifest = config.manifest
    observed = observe(manifest, store)
    todo = plan(manifest, observed, num_shards=config.cluster.num_shards)
    print(f"grid {manifest.grid}: {len(manifest.runs)} models, results in {store.root} (dry run)")
    print(report.plan_table(manifest, observed, todo))
    if cost := report.cost_text(todo):
        print(cost)
    return 0


def _launch_locked(config: LaunchConfig, store: Store) -> int:
    manifest, began = config.manifest, time.monotonic()
    for leftover in store.activity_paths():  # of launches that were killed: we hold the lock, so none is at work
        leftover.unlink(missing_ok=True)
    observed = observe(manifest, store)
    todo = plan(manifest, observed, num_shards=config.cluster.num_shards)
    print(f"grid {manifest.grid}: {len(manifest.runs)} models, results in {store.root}")
    print(report.plan_table(manifest, observed, todo))
    if not todo.units:
        write_manifest(store.manifest_path(manifest.grid), manifest)  # should it have been lost or damaged
        print(f"nothing to do: the grid is complete\n{report.next_step(config)}")
        return 0
    bring_in(todo, config, store)
    _note_changed_grid(manifest, store)
    write_manifest(store.manifest_path(manifest.grid), manifest)
    sys.stdout.flush()
    outcome = _executor(config.cluster).run(todo, grid=manifest.grid, store=store, resources=_resources(config))
    if outcome.failures:
        print(report.outcome_text(outcome), file=sys.stderr)
        return EXIT_FAILED
    print(f"complete after {time.monotonic() - began:.0f} s\n{report.next_step(config)}")
    return 0


def _note_changed_grid(manifest: Manifest, store: Store) -> None:
    path = store.manifest_path(manifest.grid)
    try:
        changed = path.exists() and read_manifest(path) != manifest
    except RecordError:
        changed = True
    if changed:
        print(
            f"note: grid {manifest.grid} was launched with other settings before; those runs stay, and its "
            "records are made anew (grid.name=NAME keeps both)"
        )


def _executor(cluster: ClusterConfig) -> Executor:
    return DebugExecutor() if cluster.kind == "debug" else LocalExecutor(num_workers=cluster.num_workers)


def _resources(config: LaunchConfig) -> Resources:
    cluster = config.cluster
    return Resources(
        device=cluster.device,
        threads=cluster.threads,
        batch_size=cluster.batch_size,
        save_every_s=cluster.save_every_s,
        # Workers may start in another folder.
        data={name: None if folder is None else str(Path(folder).absolute()) for name, folder in config.data.items()},
        compile=cluster.compile,
    )


if __name__ == "__main__":
    run_entry("launch", launch)
