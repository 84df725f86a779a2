"""The sbatch options of an array, by submitit's names, and the copy of the code that its jobs run."""

import shlex
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
    commas. ``memory_gb`` is that of each of the ``num_processes`` that run one unit together. ``num_lanes`` arrays of a
    stage share ``cluster.max_parallel``.
    """
    stage = config.stage(name.stage)
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
        **{option: config.option(name.stage, option) for option in _OPTIONS},
        "exclude": exclude,
        "wckey": config.wckey,
        "setup": [
            *trust_lines(code, folder),
            *guarded(config.option(name.stage, "setup")),
            *TEMPORARY,
            # Python imports the copy of the code, and not modules in its working directory.
            f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}",
            "export PYTHONSAFEPATH=1",
        ],
        "signal_delay_s": config.signal_delay_s,
        "use_srun": config.use_srun,
        "stderr_to_stdout": True,
        "additional_parameters": {key: value for key, value in extra.items() if value is not False},
        "array_parallelism": 1_000_000 if parallel is None else parallel // num_lanes,
    }
    if "gpu" in (parameters["gres"] or "") or any(option.startswith("gpus") for option in extra):
        del parameters["gpus_per_node"]  # these options request the GPUs
    return {key: value for key, value in parameters.items() if value is not None or key == "wckey"}


def _resources(stage: StageConfig, config: SlurmConfig, memory_gb: float | None, num_processes: int) -> dict[str, Any]:
    """Nodes, CPUs, memory and GPUs of a job, each of whose processes gets the resources of its stage.

    srun starts the processes as tasks; without srun, the one task starts them on its node.
    """
    per_node = num_processes
    if config.use_srun:
        per_node = min(num_processes, config.tasks_per_node or num_processes)
    cpus = stage.cpus if config.use_srun else stage.cpus * num_processes
    srun_args = [f"--cpus-per-task={cpus}"]  # since SLURM 22.05, srun does not inherit it from sbatch
    if num_processes > 1:
        srun_args.append("--kill-on-bad-exit=1")  # or the others would wait for the one that failed
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
    """The user's shell lines; the first that fails ends the job with an error in its log."""
    if not setup:
        return []
    ended = say_error("the setup ended with exit code $code")
    return [f"trap 'code=$?; {ended}' EXIT", "set -e", *setup, "set +e", "trap - EXIT"]


def trust_lines(code: Path, folder: Path) -> list[str]:
    """Shell lines that end a job if another user could have changed its code or settings."""
    settings = [folder.parent, *(folder.parent / name for name in ("launch.json", "grid.json"))]
    given = shlex.join(map(str, [*settings, folder, folder / "tasks.json"]))
    foreign = """'(' ! -user "$(id -u)" -o -perm /022 ')' -print -quit"""
    refused = say_error("refused to run: another user owns or can write $unsafe")
    return [
        f"unsafe=$(find {shlex.quote(str(code))} {foreign}; find {given} -maxdepth 0 {foreign})",
        f'[ -z "$unsafe" ] || {{ {refused}; exit 1; }}',
    ]


# A temporary folder for each job, removed when the job ends. If a job is killed, the next one on the node removes its
# folder, whose name ends with the id of the owning process. The shell ignores TERM, since Python needs the folder.
TEMPORARY = (
    'for left in "${TMPDIR:-/tmp}/smoothadv-$(id -u)"-*; do',
    '    [ ! -d "$left" ] || kill -0 "${left##*-}" 2>/dev/null || rm -rf "$left"',
    "done",
    'own=$(mktemp -d --suffix="-$$" "${TMPDIR:-/tmp}/smoothadv-$(id -u)-XXXXXX")',
    '[ -z "$own" ] || { export TMPDIR=$own; trap \'rm -rf "$TMPDIR"\' EXIT; trap : TERM; }',
)


def take_snapshot(store: Store) -> Path:
    """Copy the running code into the results folder, so that jobs run what was submitted; returns the copy's folder."""
    root = Path(__file__).resolve().parents[2]
    paths = [path for package in PACKAGES for path in (root / package).rglob("*") if path.suffix in _SUFFIXES]
    contents = {str(path.relative_to(root)): path.read_bytes() for path in paths if path.is_file()}
    return keep_copy(store, {**contents, COMMIT_FILE: f"{git_commit()}\n".encode()})
