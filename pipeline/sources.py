"""The inputs of a launch: datasets and published checkpoints.

The machine that launches prepares them, since there are many workers, which may have no network.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.atomic import file_sha256, write_atomically
from jobs.datasets import Split, data_folder, dataset_module
from jobs.errors import ConfigError, refuse
from jobs.files.store import Store
from jobs.plugins.isolated import ask
from jobs.prepare import is_prepared
from jobs.specs.runs import Run
from jobs.specs.train import TrainSpec, train_fields
from jobs.wording import counted, say
from pipeline.plan import Plan
from pipeline.request.config import LaunchConfig


def check_data(config: LaunchConfig) -> None:
    """Raise ConfigError, with all problems, unless every dataset of the grid has a valid folder."""
    problems: list[str] = []
    needed: dict[str, set[Split]] = {}
    sources = {train.dataset: train.source for train in config.manifest.models.values()}
    for run in config.manifest.runs:
        splits = needed.setdefault(run.train.dataset, set())
        splits.add(run.task.split)
        if not run.train.is_taken:
            splits.add("train")
    for name in sorted(needed):
        try:
            folder = data_folder(sources[name], config.data)
            if folder is not None:
                dataset_module(sources[name]).check(folder, sorted(needed[name]))
        except ConfigError as error:
            problems += error.problems
    refuse(problems)


def check_checkpoints(config: LaunchConfig, store: Store) -> None:
    """Raise ConfigError, with all problems, unless new published checkpoints match their configuration."""
    files = []
    for key, spec in config.manifest.models.items():
        sha256 = spec.checkpoint_sha256
        # Initial weights, and weights of plug-ins or for the user's own data, are only read when they are used.
        is_checked = spec.is_taken and spec.model is None and spec.data is None
        if sha256 is not None and is_checked and not store.source_path(sha256).exists() and not store.is_trained(key):
            files.append([str(config.sources[sha256]), train_fields(spec)])
    answers = ask("jobs.networks.pretrained", {}, files, limit_s=None) if files else []
    refuse(f"train.checkpoint: {problem}" for answer in answers for problem in answer.get("problems", []))
    for note in (note for answer in answers for note in answer["notes"]):
        say(f"note: train.checkpoint: {note}", sys.stderr)


def check_plugins(config: LaunchConfig, store: Store) -> None:
    """Raise ConfigError, with file and line, unless the plug-ins of new models do what a training relies on."""
    runs = [run for run in config.manifest.runs if run.train.plugins and _is_unseen(run, store)]
    if new := {(run.train.key, run.task.precision): run for run in runs}:
        say(f"checking the plug-ins of {counted(len({key for key, _ in new}), 'model')}")
        batch_size = config.cluster.batch_size
        question = [(train_fields(run.train), precision, batch_size) for (_, precision), run in new.items()]
        refuse(ask("jobs.preflight.checks", config.plugins, question))


def _is_unseen(run: Run, store: Store) -> bool:
    """Whether a network is still to be trained, or to compute in a precision that training has not shown."""
    is_rounded = run.task.precision != "float32" and bool(store.unfinished(run.place, run.indices))
    return is_rounded or not store.is_trained(run.train.key)


def stage_inputs(plan: Plan, config: LaunchConfig, store: Store) -> None:
    """Copy checkpoints, compose ensembles and prepare datasets for the units of a plan. Raises ConfigError."""
    for sha256 in dict.fromkeys(sha256 for unit in plan.train for sha256 in unit.train.source_hashes):
        target = store.source_path(sha256)
        if sha256 in config.sources and not target.exists():
            _copy(config.sources[sha256], target, sha256)
    _compose([unit.train for unit in plan.units if unit.train is not None], config, store)
    # The user's own data sets were read when they were described.
    named = {unit.train.dataset for unit in plan.units if unit.train is not None and unit.train.data is None}
    for name in sorted(named):
        if not is_prepared(name, config.data, store):
            say(f"preparing {name} in {config.data[name]}")
            _run_prepare(name, str(config.data[name]), "--results", str(store.root))


def _compose(specs: Sequence[TrainSpec], config: LaunchConfig, store: Store) -> None:
    """Make the checkpoints of ensembles. Raises ConfigError if members are damaged or have changed."""
    new = {spec.key: spec for spec in specs if spec.members and not store.is_trained(spec.key)}
    question = [
        [train_fields(spec), [str(store.checkpoint_path(member.key)) for member in spec.members], str(store.root)]
        for spec in new.values()
    ]
    refuse(ask("jobs.networks.compositions", config.plugins, question) if new else [])


def _run_prepare(*arguments: str) -> None:
    """Prepare a dataset in a separate process, which imports torch. Raises ConfigError with the printed errors."""
    command, said = [sys.executable, "-m", "jobs.prepare", *arguments], ""
    env = {name: value for name, value in os.environ.items() if name != "COLUMNS"}  # or it would wrap lines
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=env) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said += line
            if line.startswith("note: "):
                say(line.rstrip(), sys.stderr)
    if process.returncode:
        lines = [line.removeprefix("error: ") for line in said.splitlines() if line.startswith("error: ")]
        raise ConfigError(lines or [f"preparing {arguments[0]} failed: {said.strip()[-500:]}"])


def _copy(source: Path, target: Path, sha256: str) -> None:
    def check(copied: Path) -> None:
        if file_sha256(copied) != sha256:
            raise ConfigError(f"train.checkpoint: {source} changed while it was copied; launch again")

    write_atomically(target, lambda temporary: shutil.copyfile(source, temporary), check)
