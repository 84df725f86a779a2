"""Hands the units of a plan to SLURM, as arrays that depend on each other, and returns."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.failures import Failure
from jobs.manifest import Manifest
from jobs.store import Store
from jobs.units import STAGES, Resources, Stage, Unit
from pipeline import ledger, scheduler
from pipeline.activity import Activity
from pipeline.arrays import Block, Task, blocks
from pipeline.config import SlurmConfig, StageConfig
from pipeline.executor import Outcome
from pipeline.ledger import ArrayName, Launch
from pipeline.plan import Plan
from pipeline.retry import bad_nodes
from pipeline.scheduler import SchedulerError
from pipeline.snapshot import take_snapshot
from pipeline.submit import SubmissionRefusedError, SubmitLimitError, script, submit


@dataclass(frozen=True, kw_only=True)
class SlurmExecutor:
    """Submits arrays; what they do is up to SLURM from then on.

    Attributes:
        config: sbatch options and limits.
        manifest: The grid that is launched.
        activity: What is under way already.
        failures: Of the units that may be submitted again; the nodes at fault are avoided.
        runs_per_gpu: Units that a job runs at a time: it has so many times ``units_per_job``.
    """

    config: SlurmConfig
    manifest: Manifest
    activity: Activity
    failures: tuple[Failure, ...] = ()
    runs_per_gpu: int = 1

    def run(self, plan: Plan, *, grid: str, store: Store, resources: Resources) -> Outcome:
        store = Store(store.root.resolve())  # jobs start in other folders
        todo = blocks(
            plan,
            units_per_job=self.config.units_per_job * self.runs_per_gpu,
            max_array_size=self.config.max_array_size or scheduler.max_array_size(),
            in_training={name.partition("/")[2] for name in self.activity.under_way if name.startswith("train/")},
        )
        launch_id, copies = ledger.new_launch_id(), set(store.code_copies())
        code = take_snapshot(store)
        had_code = code in copies
        submission = _Submission(
            executor=self,
            store=store,
            grid=grid,
            launch_id=launch_id,
            code=code,
            room=None if self.config.max_queued is None else self.config.max_queued - len(set(self.activity.tasks)),
        )
        ledger.write_launch(store, launch_id, self._frozen(resources))
        try:
            left = submission.hand_over(todo, plan)
        except SubmissionRefusedError as error:
            with contextlib.suppress(SchedulerError):
                scheduler.cancel(submission.jobs)
            shutil.rmtree(store.launch_dir(grid, launch_id), ignore_errors=True)
            if not had_code:
                shutil.rmtree(code, ignore_errors=True)
            return Outcome(failures=(), held_back=(), problem=f"SLURM refuses: {error}; nothing was submitted")
        except SchedulerError as error:
            return submission.outcome(plan.units, problem=str(error))
        return submission.outcome(left)

    def _frozen(self, resources: Resources) -> Launch:
        return Launch(
            manifest=self.manifest,
            resources=resources,
            time_limits_min={stage: self.config.stage(stage).time_min for stage in STAGES},
            grace_s=max(1, min(30, self.config.signal_delay_s // 2)),
            runs_per_gpu=self.runs_per_gpu,
        )

    def scripts(self, plan: Plan, *, grid: str, store: Store) -> dict[Stage, str]:
        """What would be handed to sbatch for the first array of each stage."""
        stages: list[Stage] = [stage for stage in STAGES if any(unit.stage == stage for unit in plan.units)]
        texts: dict[Stage, str] = {}
        for stage in stages:
            name = ArrayName(grid=grid, launch="LAUNCH", array=f"{stage}-0")
            folder = store.array_dir(grid, name.launch, name.array).absolute()
            num_tasks = min(1000, len([unit for unit in plan.units if unit.stage == stage]))
            num_processes = plan.train[0].num_processes if stage == "train" else 1
            code = store.code_dir("CODE").absolute()
            parameters = self.parameters(name, code, num_arrays=1, num_processes=num_processes)
            texts[stage] = script(folder, parameters, num_tasks, self.config.python)
        return texts

    def parameters(
        self, name: ArrayName, code: Path, *, num_arrays: int, num_processes: int = 1, dependency: str | None = None
    ) -> dict[str, Any]:
        """sbatch options of an array, by submitit's names.

        Args:
            name: Of the array.
            code: What its jobs import.
            num_arrays: Of the same stage, among which what may run at a time is divided.
            num_processes: That do one unit together.
            dependency: What it waits for.
        """
        config, stage = self.config, self.config.stage(name.stage)
        extra: dict[str, Any] = {"requeue": True, **config.extra}
        if config.use_srun and num_processes > 1:
            extra["ntasks"] = num_processes
        if dependency is not None:
            extra |= {"dependency": dependency, "kill-on-invalid-dep": "yes"}
        parallel = config.max_parallel
        parameters = {
            "job_name": str(name),
            "time": stage.time_min,
            **_resources(stage, config, num_processes),
            "exclude": self._excluded(),
            "wckey": config.wckey,
            "setup": [*config.setup, *_use_code(code)],
            "signal_delay_s": config.signal_delay_s,
            "use_srun": config.use_srun,
            "stderr_to_stdout": True,
            "additional_parameters": extra,
            # Each of the arrays of a stage gets its share of what may run.
            "array_parallelism": 1_000_000 if parallel is None else max(1, parallel // num_arrays),
            **{option: _own_or_common(option, stage, config) for option in _OPTIONS},
        }
        return {key: value for key, value in parameters.items() if value is not None or key == "wckey"}

    def _excluded(self) -> str | None:
        nodes = sorted({*filter(None, [self.config.exclude]), *bad_nodes(self.failures)})
        return ",".join(nodes) or None


@dataclass(kw_only=True)
class _Submission:
    """One launch's way through its blocks: what is handed over so far, and what SLURM calls it."""

    executor: SlurmExecutor
    store: Store
    grid: str
    launch_id: str
    code: Path
    room: int | None
    jobs: list[str] = field(default_factory=list)
    handed_over: list[Unit] = field(default_factory=list)
    num_arrays: dict[Stage, int] = field(default_factory=dict)
    per_stage: dict[Stage, int] = field(default_factory=dict)

    def hand_over(self, todo: list[Block], plan: Plan) -> list[Unit]:
        """Submit all blocks, then the aggregation; returns what SLURM does not take for now."""
        self.per_stage = {
            "train": sum(bool(block.train) for block in todo),
            "certify": sum(len(block.certify) for block in todo),
            "attack": sum(len(block.attack) for block in todo),
            "aggregate": 1,
        }
        waiting = list(todo)
        try:
            while waiting:
                block, num_before = waiting.pop(0), len(self.jobs)
                try:
                    waiting = self._fitting(block, waiting)
                except SubmitLimitError:
                    # Where its first array was taken, the next launch does the rest of the block.
                    if block.width == 1 or len(self.jobs) > num_before:
                        raise
                    waiting = [*block.split(block.width // 2), *waiting]
        except SubmitLimitError as error:
            if not self.jobs and not self.executor.activity.under_way:
                raise SubmissionRefusedError(str(error)) from error
        done = {unit.name for unit in self.handed_over}
        left: list[Unit] = [unit for unit in plan.units if unit.stage != "aggregate" and unit.name not in done]
        if plan.aggregate is not None:
            left += self._aggregate(plan.aggregate, is_last=not left)
        return left

    def outcome(self, left: Iterable[Unit], problem: str | None = None) -> Outcome:
        done = {unit.name for unit in self.handed_over}
        return Outcome(
            failures=(),
            held_back=(),
            num_queued=len(self.handed_over),
            jobs=tuple(self.jobs),
            left=tuple(unit for unit in left if unit.name not in done),
            problem=problem,
        )

    def _fitting(self, block: Block, waiting: list[Block]) -> list[Block]:
        """Submit a block, or as much of it as there is room for; what is still to be submitted."""
        if self.room is not None and block.num_tasks > self.room:
            width = self.room // (block.num_tasks // block.width or 1)
            if width == 0:
                raise SubmitLimitError("cluster.max_queued is reached")
            block, rest = block.split(min(width, block.width - 1) or 1)
            waiting = [rest, *waiting]
        self._block(block)
        return waiting

    def _block(self, block: Block) -> None:
        corresponding = None
        if block.train:
            corresponding = f"aftercorr:{self._array('train', block.train, num_processes=block.num_processes)}"
        if block.after_earlier_training:
            models = {f"train/{unit.name.split('/')[1]}" for unit in block.units}
            earlier = self.executor.activity.arrays_with(models)
            corresponding = "afterany:" + ":".join(earlier) if earlier else None
        for stage, arrays in block.sharded.items():
            for tasks in arrays:
                self._array(stage, tasks, corresponding)

    def _aggregate(self, unit: Unit, *, is_last: bool) -> list[Unit]:
        """Submit the aggregation after everything else; an earlier one, which waits for less, is withdrawn."""
        activity = self.executor.activity
        if self.jobs and unit.name in activity.queued:
            scheduler.cancel([activity.tasks[unit.name].array_id])
        if not is_last:
            return [unit]
        runs = self.executor.manifest.sharded
        stems = {f"train/{run.train.key}" for run in runs} | {run.name for run in runs}
        ours = [name for name in activity.tasks if not stems.isdisjoint((name, name.rpartition("/")[0]))]
        before = sorted({*self.jobs, *activity.arrays_with(ours)}, key=int)
        try:
            self._array("aggregate", ((unit,),), "afterany:" + ":".join(before) if before else None)
        except SubmitLimitError:
            return [unit]
        return []

    def _array(
        self, stage: Stage, tasks: tuple[Task, ...], dependency: str | None = None, *, num_processes: int = 1
    ) -> str:
        number = self.num_arrays.get(stage, 0)
        self.num_arrays[stage] = number + 1
        name = ArrayName(grid=self.grid, launch=self.launch_id, array=f"{stage}-{number}")
        folder = ledger.write_tasks(self.store, name, [[unit.name for unit in task] for task in tasks])
        try:
            parameters = self.executor.parameters(
                name,
                self.code,
                num_arrays=self.per_stage[stage],
                num_processes=num_processes,
                dependency=dependency,
            )
            job = self._submit(folder, parameters, len(tasks))
        except (SubmitLimitError, SubmissionRefusedError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise type(error)(f"{stage}: {error}") from error
        self.jobs.append(job)
        self.handed_over += [unit for task in tasks for unit in task]
        if self.room is not None:
            self.room -= len(tasks)
        return job

    def _submit(self, folder: Path, parameters: dict[str, Any], num_tasks: int) -> str:
        config = self.executor.config
        try:
            return submit(folder, parameters, num_tasks, config.python)
        except SubmissionRefusedError:
            if parameters.get("exclude") == config.exclude:
                raise
            parameters["exclude"] = config.exclude  # no node is left: rather a bad one than none
            return submit(folder, parameters, num_tasks, config.python)


def _resources(stage: StageConfig, config: SlurmConfig, num_processes: int) -> dict[str, Any]:
    """Nodes, CPUs, memory and GPUs of a job in which so many processes have what a stage asks for each.

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
        "mem": None if stage.mem_gb is None else f"{round(stage.mem_gb * 1024) * per_node}MB",
        "gpus_per_node": stage.gpus * per_node or None,
        "srun_args": srun_args,
    }


_OPTIONS = ("partition", "account", "qos", "constraint", "gres")


def _own_or_common(option: str, stage: StageConfig, config: SlurmConfig) -> str | None:
    own, common = getattr(stage, option), getattr(config, option)
    return common if own is None else own  # type: ignore[no-any-return]


def _use_code(code: Path) -> list[str]:
    """Shell lines that make Python import a copy of the code, and not what lies in the folder it starts in."""
    return [f"export PYTHONPATH='{code}'${{PYTHONPATH:+:$PYTHONPATH}}", "export PYTHONSAFEPATH=1"]
