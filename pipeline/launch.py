"""python -m pipeline.launch grid=NAME: run the missing parts of a grid, and nothing else."""

if __name__ == "__main__":  # before the imports below: neither --help nor Ctrl-C waits for them
    from configs.entry import run_entry

    run_entry("launch", "pipeline.launch")

import sys
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from configs.entry import EXIT_FAILED
from jobs.atomic import Damage, set_aside
from jobs.errors import ConfigError, RecordError
from jobs.files.code import keep_copy
from jobs.files.folders import check_writable
from jobs.files.manifest import check_launchable, read_manifest, write_manifest, write_spec
from jobs.files.store import Store
from jobs.host import num_cpus
from jobs.specs.runs import Manifest
from jobs.specs.units import STAGES, Resources, Stage
from jobs.wording import counted, say
from pipeline import text
from pipeline.estimate import Device, forecast
from pipeline.follow import conclude, follow, units_with_more
from pipeline.local.executor import run_here, run_in_pool
from pipeline.local.gpus import visible_gpus
from pipeline.plan import Outcome, Plan, plan
from pipeline.request.config import LaunchConfig, parse_launch
from pipeline.request.lengths import notes
from pipeline.sources import check_checkpoints, check_data, check_plugins, stage_inputs
from pipeline.state import commands, queue
from pipeline.state.activity import Activity, read_queue, slurm_activity, units_of
from pipeline.state.commands import SchedulerError
from pipeline.state.files import source_damages
from pipeline.state.ledger import ArrayName, asked_for
from pipeline.state.postmortem import record_deaths
from pipeline.state.survey import Survey, survey

if TYPE_CHECKING:
    from pipeline.slurm.executor import Submission

# A status command holds the lock for a moment when it tests it.
_LOCK_PATIENCE_S = 1.0


def launch(values: dict[str, Any]) -> int:
    """Launch the grid of a composed configuration; returns the exit code.

    Raises ConfigError if the configuration cannot be run or a dataset is missing or broken; the results are unchanged.
    """
    config = _with_kind(parse_launch(values))
    store = Store(config.results)
    check_launchable(store, config.manifest.grid)
    try:
        _check(config, store)
        if config.dry_run:
            return _dry_run(config, store)
        exit_code = _launch(config, store)
        return _follow(config, store, exit_code) if config.wait and config.cluster.kind == "slurm" else exit_code
    except filelock.Timeout:
        say(text.occupied_text(config, store), sys.stderr)
    except SchedulerError as error:
        say(
            f"error: {error}. SLURM did not answer, so the queue state is unknown and nothing was submitted; "
            "launch again when squeue works",
            sys.stderr,
        )
    return EXIT_FAILED


def _launch(config: LaunchConfig, store: Store) -> int:
    with filelock.FileLock(store.launch_lock_path()).acquire(timeout=_LOCK_PATIENCE_S):
        return _launch_locked(config, store)


def _follow(config: LaunchConfig, store: Store, exit_code: int) -> int:
    """Wait until nothing runs; launch again while there are failed units that then get more memory or time."""
    assert config.slurm is not None
    retried = set[tuple[str, int]]()
    while True:
        current = follow(config.manifest, store, poll_s=config.slurm.poll_s)
        more = units_with_more(config.slurm, current) - retried
        if not more:
            return max(exit_code, conclude(current))
        retried |= more  # a launch that is refused does not change them
        say(f"launching again, with more memory or time for {counted(len(more), 'unit')}", sys.stderr)
        exit_code = _launch(config, store)


def _check(config: LaunchConfig, store: Store) -> None:
    """Raise ConfigError if the machine, the data or the files make the launch impossible; print notes."""
    cluster = config.cluster
    if cluster.device == "cuda" and cluster.kind != "slurm" and not visible_gpus():
        raise ConfigError(
            "cluster.device=cuda, but this machine has no usable GPU (see nvidia-smi and CUDA_VISIBLE_DEVICES); "
            "use cluster.device=auto"
        )
    check_data(config)
    check_checkpoints(config, store)
    check_plugins(config, store)
    check_writable(store.root, "results", subfolders=("runs", "grids"), touch=not config.dry_run)
    for note in dict.fromkeys(notes(config.manifest)):
        say(f"note: {note}", sys.stderr)


def _with_kind(config: LaunchConfig) -> LaunchConfig:
    """The configuration with cluster.kind=auto resolved."""
    kind, results = config.cluster.kind, config.results.resolve()
    if kind == "slurm" and not queue.is_installed():
        raise ConfigError(
            "cluster: SLURM is not installed here (no sbatch); use cluster=local, or launch on a login node"
        )
    if kind == "auto":
        kind = "slurm" if queue.is_installed() and queue.is_configured() else "local"
    named = (config.slurm and config.slurm.clusters) or commands.default_cluster() or ""
    if kind == "slurm" and "," in named:
        message = f"SLURM_CLUSTERS={named} names several clusters; write cluster.clusters=NAME"
        raise ConfigError(f"cluster.clusters: {message}")
    if kind == "slurm" and not {":", "%"}.isdisjoint(str(results)):
        # A colon separates the entries of PYTHONPATH, and sbatch replaces patterns such as %j in the path of a log.
        message = "has a ':' or a '%', which SLURM jobs cannot use; choose another folder with results=PATH"
        raise ConfigError(f"results: {results} {message}")
    return replace(config, cluster=replace(config.cluster, kind=kind))


def _dry_run(config: LaunchConfig, store: Store) -> int:
    manifest = config.manifest
    found = _survey(config, store)
    todo = _plan(config, found)
    say(f"grid {manifest.grid}: {counted(len(manifest.models), 'model')}, results in {store.root} (dry run)")
    say(text.plan_table(manifest, found.observed, todo, found.activity))
    if found.observed.damaged:
        say(text.damages_text(found.observed.damaged), sys.stderr)
    devices: dict[Stage, Device] = {stage: _device_of(stage, config) for stage in STAGES}
    cost = forecast(
        todo,
        manifest,
        found.observed,
        store,
        devices=devices,
        certify_cpus=None if config.slurm is None else config.slurm.certify.cpus,
        threads=config.cluster.threads,
        plugins=config.plugins,
    )
    if cost_text := text.cost_text(cost, devices):
        say(cost_text)
    if config.cluster.kind == "slurm":
        print(_submission(config, store, found, todo).preview(), end="")
    return 0


def _device_of(stage: Stage, config: LaunchConfig) -> Device:
    """The device that the units of a stage run on."""
    if config.cluster.device != "auto":
        return "CPU" if config.cluster.device == "cpu" else "GPU"
    if config.cluster.kind != "slurm" or config.slurm is None:
        return "GPU" if visible_gpus() else "CPU"
    asks = f"{config.slurm.option(stage, 'gres')} {config.slurm.option(stage, 'extra')}"
    return "GPU" if config.slurm.stage(stage).gpus or "gpu" in asks else "CPU"


def _launch_locked(config: LaunchConfig, store: Store) -> int:
    manifest, began = config.manifest, time.monotonic()
    for leftover in store.activity_paths():  # of killed launches: we hold the lock, so no other is running
        leftover.unlink(missing_ok=True)
    found = _survey(config, store)
    if config.cluster.kind != "slurm":
        if found.activity.problem:
            say(f"note: {found.activity.problem}, so it is unknown whether it runs units of {store.root}", sys.stderr)
        if elsewhere := units_of(manifest, found.activity.in_progress):
            say(text.elsewhere_text(config, elsewhere), sys.stderr)
            return EXIT_FAILED
    _set_aside(found.observed.damaged, manifest, store)
    if found.deaths:
        new_failures = record_deaths(found.deaths, manifest, store)
        say("\n".join(text.failure_texts(new_failures)), sys.stderr)
        found = survey(manifest, store, found.activity)
    todo = _plan(config, found)
    say(f"grid {manifest.grid}: {counted(len(manifest.models), 'model')}, results in {store.root}")
    say(text.plan_table(manifest, found.observed, todo, found.activity))
    if todo.waiting:
        say(text.waiting_text(todo, found.history), sys.stderr)
    if found.activity.refused:
        reasons = text.stuck_reasons(found.activity.refused)
        say(f"error: {reasons}. Change the options and launch again: the launch replaces these tasks", sys.stderr)
    needs_person = bool(todo.waiting or found.activity.refused)
    if not todo.units:
        if needs_person:
            return EXIT_FAILED
        _write_manifest(manifest, store)  # it may have been lost or damaged
        if found.activity.in_progress:
            say(f"nothing to submit: the rest is in progress\n{text.follow_step(config)}")
        else:
            say(f"nothing to do: the grid is complete\n{text.next_step(config)}")
        return 0
    _set_aside([damage for unit in todo.train for damage in source_damages(unit.train, store)], manifest, store)
    stage_inputs(todo, config, store)
    _write_manifest(manifest, store)
    if found.activity.stuck:
        queue.cancel(found.activity.stuck)
        reasons = text.stuck_reasons(found.activity.stuck)
        say(f"{reasons}; they were cancelled, and their units are submitted again", sys.stderr)
    outcome = _run(config, store, found, todo)
    if outcome.failures or outcome.problem:
        say(text.outcome_text(outcome), sys.stderr)
        return EXIT_FAILED
    if outcome.limit and not outcome.num_queued:
        say(text.limit_text(outcome, found.activity), sys.stderr)
        # Only units in progress, if there are any, make room in the queue when they end.
        return EXIT_FAILED if needs_person or not found.activity.in_progress else 0
    if outcome.num_queued:
        say(text.queued_text(config, store, outcome, time.monotonic() - began))
    elif not todo.waiting:
        say(f"complete after {time.monotonic() - began:.0f} s\n{text.next_step(config)}")
    return EXIT_FAILED if needs_person else 0


def _survey(config: LaunchConfig, store: Store) -> Survey:
    """The state of the grid; tasks that SLURM will never run count as queued if new ones would request the same."""
    activity, manifest = Activity(), config.manifest
    if config.cluster.kind == "slurm":
        assert config.slurm is not None
        slurm, tasks = config.slurm, read_queue(store, config.slurm.clusters or commands.default_cluster())
        activity = slurm_activity(store, manifest.grid, tasks)
        stuck = [task for task in activity.stuck if task.kind == "refused"]
        names = {task.job_name: name for task in stuck if (name := ArrayName.parse(task.job_name))}
        same = {job for job, name in names.items() if asked_for(store, name) == slurm.asked(name.stage)}
        if refused := [task for task in stuck if task.job_name in same]:
            activity = slurm_activity(store, manifest.grid, tasks, keep=refused)
    elif store.has_slurm_launches() and queue.is_installed() and queue.is_configured():
        activity = slurm_activity(store, manifest.grid, read_queue(store))
    elif store.has_slurm_launches():
        activity = Activity(problem="SLURM is not available here")
    return survey(manifest, store, activity)


def _plan(config: LaunchConfig, found: Survey) -> Plan:
    return plan(
        config.manifest,
        found.observed,
        num_shards=config.cluster.num_shards,
        history=found.history,
        in_progress=found.activity.in_progress,
        retry=config.retry,
        num_memories=config.slurm.num_memories if config.slurm else 1,
    )


def _set_aside(damages: Sequence[Damage], manifest: Manifest, store: Store) -> None:
    """Rename damaged files and print their names. Specs are rewritten here, other files by the units of a plan."""
    renamed = [Damage(path, f"{problem}; renamed to {set_aside(path).name}") for path, problem in damages if path]
    if renamed:
        say(text.damages_text(renamed), sys.stderr)
    paths = {damage.path for damage in damages}
    for spec in manifest.models.values():
        if store.spec_path(spec.key) in paths:
            write_spec(store, spec)


def _write_manifest(manifest: Manifest, store: Store) -> None:
    """Write grid.json; print a note if it had other settings, and rename it first if it cannot be read."""
    path = store.manifest_path(manifest.grid)
    try:
        if path.exists() and read_manifest(path) != manifest:
            say(
                f"note: grid {manifest.grid} was launched before with other settings; its runs are kept, and its "
                "records will be rebuilt (to keep both, set grid.name=NAME)"
            )
    except RecordError as error:
        _set_aside([Damage(path, str(error).removeprefix(f"{path}: "))], manifest, store)
    write_manifest(path, manifest)


def _run(config: LaunchConfig, store: Store, found: Survey, todo: Plan) -> Outcome:
    """Run a plan, or submit it to SLURM."""
    cluster, resources = config.cluster, _resources(config, store)
    if cluster.kind == "slurm":
        return _submission(config, store, found, todo).run(resources)
    if cluster.kind == "debug":
        return run_here(todo, config.manifest.grid, store, resources)
    gpus = () if cluster.device == "cpu" else visible_gpus()
    return run_in_pool(
        todo,
        config.manifest.grid,
        store,
        resources,
        num_workers=cluster.max_workers or len(gpus) * cluster.runs_per_gpu or max(1, num_cpus() // cluster.threads),
        gpus=gpus,
        runs_per_gpu=cluster.runs_per_gpu,
    )


def _submission(config: LaunchConfig, store: Store, found: Survey, todo: Plan) -> "Submission":
    from pipeline.slurm.executor import Submission  # submitit is slow to import

    assert config.slurm is not None
    return Submission(
        plan=todo,
        manifest=config.manifest,
        store=store,
        config=config.slurm,
        activity=found.activity,
        failures={name: failure for name, failure in found.history.items() if name not in todo.waiting},
        runs_per_gpu=config.cluster.runs_per_gpu,
    )


def _resources(config: LaunchConfig, store: Store) -> Resources:
    cluster = config.cluster
    plugins = str(keep_copy(store, config.plugins).resolve()) if config.plugins else None
    data = {name: None if folder is None else str(Path(folder).absolute()) for name, folder in config.data.items()}
    return Resources(
        data=data,  # absolute, since workers may start in another folder
        plugins=plugins,
        **{field.name: getattr(cluster, field.name) for field in fields(Resources) if hasattr(cluster, field.name)},
    )
