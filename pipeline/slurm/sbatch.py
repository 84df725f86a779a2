"""What sbatch is asked for: the options of an array, by submitit's names, and the code that its jobs run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.files.code import COMMIT_FILE, git_commit, keep_copy
from jobs.files.store import Store
from jobs.plugins.files import PACKAGES
from pipeline.request.config import SlurmConfig, StageConfig
from pipeline.state.joblog import say_error
from pipeline.state.ledger import ArrayName


def sbatch_parameters(
    config: SlurmConfig,
    name: ArrayName,
    code: Path,
    folder: Path,
    *,
    exclude: str | None,
    memory_gb: float | None,
    limit_min: int,
    num_lanes: int = 1,
    num_processes: int = 1,
    dependency: str | None = None,
) -> dict[str, Any]:
    """sbatch options of an array, by submitit's names.

    Its jobs import the code in ``code`` and find their units in ``folder``. ``exclude`` lists nodes, separated by
    commas. ``memory_gb`` is the memory of each of the ``num_processes`` that run one unit together. The ``num_lanes``
    arrays of a stage that may run at a time share ``cluster.max_parallel``.
    """
    stage = config.stage(name.stage)
    options = {option: config.option(name.stage, option) for option in _OPTIONS}
    extra = {"requeue": True, **config.option(name.stage, "extra")}
    if config.mail and name.stage == "aggregate":  # the last job of a grid
        extra = {"mail-user": config.mail, "mail-type": "END,FAIL"} | extra
    if config.use_srun and num_processes > 1:
        extra["ntasks"] = num_processes
    if dependency is not None:
        extra |= {"dependency": dependency, "kill-on-invalid-dep": "yes"}
    parallel = config.max_parallel
    parameters = {
        "job_name": str(name),
        "time": limit_min,
        **_resources(stage, config, memory_gb, num_processes),
        **options,
        "exclude": exclude,
        "wckey": config.wckey,
        "setup": [
            *trust_lines(code, folder),
            *guarded(config.option(name.stage, "setup")),
            *TEMPORARY,
            *_use_code(code),
        ],
        "signal_delay_s": config.signal_delay_s,
        "use_srun": config.use_srun,
        "stderr_to_stdout": True,
        "additional_parameters": {key: value for key, value in extra.items() if value is not False},
        "array_parallelism": 1_000_000 if parallel is None else parallel // num_lanes,
    }
    if "gpu" in (parameters["gres"] or "") or any(option.startswith("gpus") for option in extra):
        del parameters["gpus_per_node"]  # it asks for GPUs in its own way
    return {key: value for key, value in parameters.items() if value is not None or key == "wckey"}


def _resources(stage: StageConfig, config: SlurmConfig, memory_gb: float | None, num_processes: int) -> dict[str, Any]:
    """Nodes, CPUs, memory and GPUs of a job whose processes each get what a stage asks for.

    They are tasks that srun starts, or (without srun) processes that the one task starts on its node.
    """
    per_node = num_processes
    if config.use_srun:
        per_node = min(num_processes, config.tasks_per_node or num_processes)
    cpus = stage.cpus if config.use_srun else stage.cpus * num_processes
    srun_args = [f"--cpus-per-task={cpus}"]  # since 22.05 srun does not take that over from sbatch
    if num_processes > 1:
        srun_args.append("--kill-on-bad-exit=1")  # the others would wait for the one that failed
    return {
        "nodes": -(-num_processes // per_node),
        "ntasks_per_node": per_node if config.use_srun and num_processes > 1 else None,
        "cpus_per_task": cpus,
        "mem": None if memory_gb is None else f"{round(memory_gb * 1024) * per_node}MB",
        "gpus_per_node": stage.gpus * per_node or None,
        "srun_args": srun_args,
    }


_SUFFIXES = {".py", ".yaml", ".csv", ".html", ".js"}
_OPTIONS = ("partition", "account", "qos", "constraint", "gres")


def guarded(setup: list[str]) -> list[str]:
    """Shell lines of the user: the first that fails ends the job, and its log says so."""
    if not setup:
        return []
    ended = say_error("the setup ended with exit code $code")
    return [f"trap 'code=$?; {ended}' EXIT", "set -e", *setup, "set +e", "trap - EXIT"]


def trust_lines(code: Path, folder: Path) -> list[str]:
    """Shell lines that end a job of which anybody else could have changed the code or the settings."""
    settings = [folder.parent, *(folder.parent / name for name in ("launch.json", "grid.json"))]
    given = shlex.join(map(str, [*settings, folder, folder / "tasks.json"]))
    foreign = """'(' ! -user "$(id -u)" -o -perm /022 ')' -print -quit"""
    refused = say_error("refused to run: another user owns or can write $unsafe")
    return [
        f"unsafe=$(find {shlex.quote(str(code))} {foreign}; find {given} -maxdepth 0 {foreign})",
        f'[ -z "$unsafe" ] || {{ {refused}; exit 1; }}',
    ]


# A folder of the job's own for temporary files, which goes with it. A job that is killed leaves it to the next one on
# the node; the name ends with the number of the process that owns it. TERM is for Python, which needs it until it ends.
TEMPORARY = (
    'for left in "${TMPDIR:-/tmp}/smoothadv-$(id -u)"-*; do',
    '    [ ! -d "$left" ] || kill -0 "${left##*-}" 2>/dev/null || rm -rf "$left"',
    "done",
    'own=$(mktemp -d --suffix="-$$" "${TMPDIR:-/tmp}/smoothadv-$(id -u)-XXXXXX")',
    '[ -z "$own" ] || { export TMPDIR=$own; trap \'rm -rf "$TMPDIR"\' EXIT; trap : TERM; }',
)


def _use_code(code: Path) -> list[str]:
    """Shell lines that make Python import a copy of the code, and not what lies in the folder it starts in."""
    return [f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}", "export PYTHONSAFEPATH=1"]


def take_snapshot(store: Store) -> Path:
    """Copy the code of the running package under the results, so that a job runs what was submitted; its folder.

    It is named by a hash of its content: launches of the same code share one copy, if they are of one user.
    """
    root, commit = Path(__file__).resolve().parents[2], git_commit()
    contents = {str(path.relative_to(root)): path.read_bytes() for path in _files(root)}
    return keep_copy(store, {**contents, COMMIT_FILE: f"{commit}\n".encode()})


def _files(root: Path) -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in _SUFFIXES and path.is_file():
                yield path
