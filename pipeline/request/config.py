"""The launch configuration as frozen dataclasses, every value checked, all errors at once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass as plain_dataclass
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field
from pydantic.dataclasses import dataclass

from jobs.errors import ConfigError, refuse
from jobs.specs.runs import Manifest
from jobs.specs.units import STAGES, Compile, CompileOrAuto, Stage
from jobs.validation import STRICT, collect, matching
from pipeline.request.checkpoints import checkpoint_files
from pipeline.request.cost import cpus_to_certify
from pipeline.request.grid import GridConfig, expand, models_of
from pipeline.request.plugins import Plugins, find_plugins
from pipeline.retry import Retry

# Options of sbatch that have their own option here, and those that the launcher needs: it finds jobs by their name,
# tasks by their index, logs in their folder, and the job id in sbatch's answer.
_OWN_OPTIONS = {
    **{name: name for name in ("partition", "account", "qos", "constraint", "gres", "exclude", "wckey")},
    "time": "STAGE.time_min",
    "mem": "STAGE.mem_gb",
    "cpus-per-task": "STAGE.cpus",
    "gpus-per-node": "STAGE.gpus",
    "ntasks-per-node": "tasks_per_node",
    "signal": "signal_delay_s",
    "clusters": "clusters",
}
_TAKEN_OPTIONS = {
    "array",
    "dependency",
    "error",
    "job-name",
    "kill-on-invalid-dep",
    "nodes",
    "ntasks",
    "open-mode",
    "output",
    "parsable",
    "quiet",
    "test-only",
    "wait",
    "wrap",
}
_GROUPS = ("grid", "train", "certify", "attack", "cluster")
_MAX_SIGNAL_DELAY_S = 65535
_Memory = Annotated[float, Field(gt=0)]
_Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ClusterConfig:
    """Where and how units run; configs/cluster/local.yaml explains the options. None of them is part of a key."""

    kind: Literal["auto", "local", "debug", "slurm"]
    max_workers: _Positive | None
    runs_per_gpu: _Positive
    num_shards: _Positive
    device: Literal["auto", "cpu", "cuda"]
    threads: _Positive
    batch_size: _Positive
    compile: CompileOrAuto
    compile_training: Compile
    min_equal_votes: Annotated[float, Field(ge=0, le=1)]
    save_every_s: Annotated[float, Field(gt=0)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class _SbatchOptions:
    """Options of sbatch, for all stages or for one. None sends no option, or in a stage, the one for all stages."""

    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    gres: str | None
    exclude: str | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StageConfig(_SbatchOptions):
    """What one job of a stage requests; configs/cluster/slurm.yaml explains the options."""

    gpus: Annotated[int, Field(ge=0)]
    cpus: _Positive
    mem_gb: _Memory | Annotated[list[_Memory], Field(min_length=1)] | None
    time_min: _Positive | Annotated[list[_Positive], Field(min_length=1)]
    extra: dict[str, bool | int | str] = Field(default_factory=dict)
    setup: list[str] | None = None
    python: str | None = None

    def memory_gb(self, num_failures: int = 0) -> float | None:
        """Memory of a unit after ``num_failures`` failures of class host_oom."""
        return self.mem_gb[min(num_failures, len(self.mem_gb) - 1)] if isinstance(self.mem_gb, list) else self.mem_gb

    def limit_min(self, num_failures: int = 0) -> int:
        """Time limit of a unit after ``num_failures`` timeouts."""
        limits = self.time_min
        return limits[min(num_failures, len(limits) - 1)] if isinstance(limits, list) else limits


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SlurmConfig(_SbatchOptions):
    """How units are submitted to SLURM; configs/cluster/slurm.yaml explains the options. None is part of a key."""

    wckey: str | None
    extra: dict[str, bool | int | str]
    setup: list[str]
    python: str | None
    use_srun: bool
    tasks_per_node: _Positive | None
    units_per_job: _Positive
    max_parallel: _Positive | None
    max_queued: _Positive | None
    max_array_size: _Positive | None
    signal_delay_s: _Positive
    poll_s: Annotated[float, Field(gt=0)]
    train: StageConfig
    certify: StageConfig
    attack: StageConfig
    aggregate: StageConfig
    clusters: Annotated[str, matching(r"[\w.-]+", "the name of one cluster")] | None = None
    after: Annotated[str | int, matching(r"((after\w*:)?\d+(_\d+)?[:,]?)+", "a job id or afterany:ID")] | None = None
    mail: str | None = None
    stall_min: Annotated[float, Field(gt=0)] | None = None

    def stage(self, stage: Stage) -> StageConfig:
        """Resources of a stage."""
        return cast(StageConfig, getattr(self, stage))

    def option(self, stage: Stage, name: str) -> Any:
        """An option of a stage: its own value, else that for all stages; None if neither is set."""
        own, common = getattr(self.stage(stage), name), getattr(self, name)
        if name == "extra":
            return {**common, **own}
        value = common if own is None else own
        return None if value == "none" else value

    @property
    def num_memories(self) -> int:
        """The largest number of memory values that a unit can get one after another."""
        return max(len(mem) if isinstance(mem := self.stage(stage).mem_gb, list) else 1 for stage in STAGES)

    def asked(self, stage: Stage) -> dict[str, Any]:
        """Everything that a job of a stage requests, by the names of the options."""
        common = ("partition", "account", "qos", "constraint", "gres", "extra")
        own = {name: getattr(self.stage(stage), name) for name in ("gpus", "cpus", "mem_gb", "time_min")}
        return own | {name: self.option(stage, name) for name in common}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class _Options:
    """The keys of launch.yaml that belong to no group."""

    results: Annotated[str, Field(min_length=1)]
    dry_run: bool
    data: dict[str, str | None]
    plugins: list[str]
    wait: bool
    retry: Retry | None


@plain_dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    """The whole configuration of a launch."""

    manifest: Manifest  # the expanded grid
    cluster: ClusterConfig
    slurm: SlurmConfig | None  # None without SLURM
    results: Path
    data: Mapping[str, str | None]  # folders of the datasets that are read from disk
    plugins: Mapping[str, bytes]  # files of plug-ins, by their path in the folder from which jobs import them
    sources: Mapping[str, Path]  # weight files, by their hashes in specs
    dry_run: bool  # print what would be done and write nothing
    wait: bool  # follow the submitted jobs until they have ended
    retry: Retry | None  # failures to retry that are otherwise not retried automatically


def parse_launch(values: Mapping[str, Any]) -> LaunchConfig:
    """The launch configuration, from composed values of configs/launch.yaml. Raises ConfigError with all problems."""
    not_groups = [group for group in _GROUPS if not isinstance(values[group], Mapping)]
    refuse(f"{group}: write keys with values, got {values[group]!r}" for group in not_groups)
    values, problems = _with_own_data(values)
    rest = {key: value for key, value in values.items() if key not in _GROUPS}
    options = collect(problems, _Options, rest, where="")
    grid = collect(problems, GridConfig, values["grid"], where="grid")
    manifest, plugins = None, Plugins()
    if grid is not None:
        try:
            plugins = find_plugins(options.plugins if options else [], models_of(grid, values["train"]))
            manifest = expand(
                grid,
                values["train"],
                values["certify"],
                attack=values["attack"],
                data={**(options.data if options else {}), **plugins.data},
                plugins=plugins,
                results=Path(options.results if options else "results"),
            )
        except ConfigError as error:
            problems += error.problems
    cluster, slurm = _parse_cluster(problems, values["cluster"], manifest)
    if slurm is not None:
        problems += [*_extra_problems(slurm), *_signal_problems(slurm)]
    if cluster is not None and manifest is not None:
        problems += _sharing_problems(cluster, slurm, manifest)
    if options is None or cluster is None or manifest is None or problems:
        raise ConfigError(problems)
    results = Path(options.results)
    sources = checkpoint_files(models_of(grid, values["train"]), results) if grid else {}
    given = {**vars(options), "results": results, "plugins": plugins.contents}
    given["data"] = {**options.data, **plugins.data}
    return LaunchConfig(manifest=manifest, cluster=cluster, slurm=slurm, sources=sources, **given)


def _with_own_data(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Replace ``data: npz:PATH``, which is short for ``dataset: npz:PATH`` in all models; and problems with it."""
    source, blocks = values["data"], values["grid"].get("blocks")
    if not isinstance(source, str):
        return dict(values), []
    setting = [
        f"grid.blocks[{number}]"
        for number, block in enumerate(blocks if isinstance(blocks, list) else [])
        if isinstance(block, Mapping) and {"dataset", "data"} & set(block)
    ]
    problems = [f"data={source} has no effect, because blocks name data sets: {', '.join(setting)}"] if setting else []
    if ":" not in source:
        problems.append(f"data={source}: write npz:PATH, folder:PATH or module:function, or data.NAME=PATH")
    return {**values, "data": {}, "train": {**values["train"], "dataset": source}}, problems


def _extra_problems(slurm: SlurmConfig) -> Iterator[str]:
    """Options in ``extra`` that have their own option, or that the launcher sets."""
    extras = {"cluster": slurm.extra, **{f"cluster.{stage}": slurm.stage(stage).extra for stage in STAGES}}
    for where, given in ((f"{place}.extra", given) for place, extra in extras.items() for given in extra):
        option = given.replace("_", "-")
        if option in _OWN_OPTIONS:
            yield f"{where}.{given}: write cluster.{_OWN_OPTIONS[option]} instead"
        if option in _TAKEN_OPTIONS:
            yield f"{where}.{given}: set by the launcher; remove it"


def _signal_problems(slurm: SlurmConfig) -> Iterator[str]:
    """Signal delays that SLURM does not allow, or that are longer than a job."""
    option = f"cluster.signal_delay_s={slurm.signal_delay_s}"
    if slurm.signal_delay_s > _MAX_SIGNAL_DELAY_S:
        yield f"{option}: SLURM allows at most {_MAX_SIGNAL_DELAY_S}"
    for stage in STAGES:
        limit = slurm.stage(stage).limit_min()
        if slurm.signal_delay_s >= limit * 60:
            yield f"{option}: must be less than the time limit, but cluster.{stage}.time_min={limit} is {limit * 60} s"


def _sharing_problems(cluster: ClusterConfig, slurm: SlurmConfig | None, manifest: Manifest) -> Iterator[str]:
    """Settings with which a GPU cannot be shared."""
    if cluster.runs_per_gpu == 1:
        return
    option = f"cluster.runs_per_gpu={cluster.runs_per_gpu}"
    if cluster.kind == "debug":
        yield f"{option}: cluster=debug runs one unit at a time; remove this option or use cluster=local"
    if cluster.device == "cpu":
        yield f"{option}: cluster.device=cpu uses no GPU; remove this option or set cluster.max_workers"
    if max(train.num_processes for train in manifest.models.values()) > 1:
        yield f"{option}: a model with num_processes above 1 has its GPUs to itself; launch it in a separate grid"
    on_gpus: tuple[Stage, ...] = ("train", "certify", "attack")
    for stage, num_gpus in [] if slurm is None else [(stage, slurm.stage(stage).gpus) for stage in on_gpus]:
        if num_gpus != 1:
            yield f"{option}: the units of a job share one GPU, but cluster.{stage}.gpus is {num_gpus}; set it to 1"


def _parse_cluster(
    problems: list[str], values: Mapping[str, Any], manifest: Manifest | None
) -> tuple[ClusterConfig | None, SlurmConfig | None]:
    """The cluster group: the options of every kind, and those of SLURM."""
    kind, slurm_keys = values.get("kind"), {field.name for field in fields(SlurmConfig)}
    slurm_values = {key: value for key, value in values.items() if key in slurm_keys}
    if slurm_values and kind in ("local", "debug"):
        names = ", ".join(list(slurm_values)[:3]) + (", ..." if len(slurm_values) > 3 else "")
        problems.append(f"cluster.kind={kind} takes no SLURM options ({names}); write cluster={kind} without them")
        return None, None
    if not slurm_values and kind in ("slurm", "auto"):
        problems.append(f"cluster.kind={kind} needs the SLURM options; write cluster={kind}")
        return None, None
    rest = {key: value for key, value in values.items() if key not in slurm_keys}
    cluster = collect(problems, ClusterConfig, rest, where="cluster")
    for stage in STAGES:
        if isinstance(slurm_values.get(stage), Mapping):
            if stage == "certify" and slurm_values[stage].get("cpus", 0) is None:
                cpus = cpus_to_certify(manifest.runs if manifest else [])
                slurm_values[stage] = {**slurm_values[stage], "cpus": cpus}
            slurm_values[stage] = collect(problems, StageConfig, slurm_values[stage], where=f"cluster.{stage}")
    if problems or not slurm_values:
        return cluster, None
    return cluster, collect(problems, SlurmConfig, slurm_values, where="cluster")
