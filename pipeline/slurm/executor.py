"""Submits the units of a plan to SLURM, as arrays that depend on each other, and returns."""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.files.failures import Failure, FailureClass
from jobs.files.store import Store
from jobs.specs.runs import SHARD_STAGES, Manifest
from jobs.specs.units import STAGES, Resources, Stage, Unit
from pipeline.plan import Outcome, Plan
from pipeline.request.config import SlurmConfig
from pipeline.retry import bad_nodes
from pipeline.slurm.arrays import Block, Task, blocks
from pipeline.slurm.sbatch import sbatch_parameters, take_snapshot
from pipeline.slurm.submit import SubmissionRefusedError, SubmitLimitError, script, submit
from pipeline.state import commands, ledger, queue
from pipeline.state.activity import Activity, units_of
from pipeline.state.commands import SchedulerError
from pipeline.state.ledger import ArrayName, Launch
from pipeline.state.reasons import advice


@dataclass(frozen=True, kw_only=True)
class SlurmExecutor:
    """Submits arrays; SLURM runs them after the launch has returned."""

    config: SlurmConfig  # sbatch options and limits
    manifest: Manifest  # the grid that is launched
    activity: Activity  # what is already in progress
    # The last failure of each unit that may be submitted again, by its name; nodes that caused one are avoided
    failures: Mapping[str, Failure] = field(default_factory=dict)
    runs_per_gpu: int = 1  # units that a job runs at a time; it multiplies ``units_per_job``

    def run(self, plan: Plan, *, grid: str, store: Store, resources: Resources) -> Outcome:
        store = Store(store.root.resolve())  # jobs start in other folders
        max_queued = self.config.max_queued
        launch_id, copies = ledger.new_launch_id(store, grid), set(store.code_copies())
        submission = _Submission(
            executor=self,
            plan=plan,
            store=store,
            grid=grid,
            launch_id=launch_id,
            code=take_snapshot(store),
            room=math.inf if max_queued is None else max(0, max_queued - self.activity.num_tasks),
        )
        todo = blocks(
            plan,
            units_per_job=self.config.units_per_job * self.runs_per_gpu,
            max_array_size=self.config.max_array_size or queue.max_array_size(self.cluster),
            in_training={name.partition("/")[2] for name in self.activity.in_progress if name.startswith("train/")},
        )
        ledger.write_launch(store, launch_id, self._frozen(resources))
        problem = None
        try:
            submission.hand_over(todo)
        except SubmissionRefusedError as error:
            try:
                queue.cancel_jobs(submission.jobs, self.cluster)
            except SchedulerError as silence:
                problem = f"SLURM refuses: {error}; what was submitted before could not be cancelled ({silence})"
                return submission.outcome(problem)
            submission.jobs, submission.handed_over = [], []
            problem = f"SLURM refuses: {error}; nothing was submitted"
        except SchedulerError as error:
            return submission.outcome(str(error))  # it may have accepted an array without confirming it
        if not submission.jobs:
            shutil.rmtree(store.launch_dir(grid, launch_id), ignore_errors=True)
            if submission.code not in copies:
                shutil.rmtree(submission.code, ignore_errors=True)
        return submission.outcome(problem)

    def _frozen(self, resources: Resources) -> Launch:
        return Launch(
            manifest=self.manifest,
            resources=resources,
            time_limits_min={stage: self.config.stage(stage).limit_min() for stage in STAGES},
            grace_s=max(1, min(30, self.config.signal_delay_s // 2)),
            runs_per_gpu=self.runs_per_gpu,
            cluster=self.cluster,
            signal_delay_s=self.config.signal_delay_s,
            stall_min=self.config.stall_min,
            asked={stage: self.config.asked(stage) for stage in STAGES},
        )

    def preview(self, plan: Plan, *, grid: str, store: Store) -> str:
        """The text for sbatch of the first array of each stage."""
        texts = []
        for stage in STAGES:
            units = [unit for unit in plan.units if unit.stage == stage]
            if units:
                name = ArrayName(grid=grid, launch="LAUNCH", array=f"{stage}-0")
                folder = store.array_dir(grid, name.launch, name.array).absolute()
                code = store.code_dir("CODE").absolute()
                parameters = self.parameters(name, code, folder, num_processes=units[0].num_processes)
                text = script(folder, parameters, min(1000, len(units)), self.config.option(stage, "python"))
                texts.append(f"\n--- sbatch, {stage}\n{text}\n")
        return "".join(texts)

    def parameters(
        self, name: ArrayName, code: Path, folder: Path, tasks: Sequence[Task] = (), **more: Any
    ) -> dict[str, Any]:
        """sbatch options of an array of these tasks, given their earlier failures; see ``sbatch_parameters``."""
        return sbatch_parameters(
            self.config,
            name,
            code,
            folder,
            exclude=self._excluded(name.stage),
            memory_gb=self.config.stage(name.stage).memory_gb(self._num_failures(tasks, "host_oom")),
            limit_min=self.limit_min(name.stage, tasks),
            **more,
        )

    def limit_min(self, stage: Stage, tasks: Sequence[Task]) -> int:
        """Time limit of an array of these tasks, in minutes."""
        return self.config.stage(stage).limit_min(self._num_failures(tasks, "timeout"))

    def _num_failures(self, tasks: Sequence[Task], failure_class: FailureClass) -> int:
        """The largest number of failures of a class among the units of these tasks."""
        failed = (self.failures.get(unit.name) for task in tasks for unit in task)
        return max((failure.counts[failure_class] for failure in failed if failure), default=0)

    @property
    def cluster(self) -> str | None:
        """The cluster to submit to; None for the default one."""
        return self.config.clusters or commands.default_cluster()

    def _excluded(self, stage: Stage) -> str | None:
        """Nodes that jobs of a stage avoid: those of the user's option, and those that caused failures."""
        nodes = {*filter(None, [self.config.option(stage, "exclude")]), *bad_nodes(self.failures.values())}
        return ",".join(sorted(nodes)) or None


@dataclass(kw_only=True)
class _Submission:
    """The state of one submission: what has been submitted so far, and its job ids."""

    executor: SlurmExecutor
    plan: Plan
    store: Store
    grid: str
    launch_id: str
    code: Path
    room: float  # tasks that may still be queued
    jobs: list[str] = field(default_factory=list)
    handed_over: list[Unit] = field(default_factory=list)
    arrays: dict[Stage, list[str]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    num_lanes: dict[Stage, int] = field(default_factory=dict)
    limit: str | None = None

    def hand_over(self, todo: list[Block]) -> None:
        """Submit all blocks and then the aggregation, or as much as SLURM accepts now."""
        num_arrays: dict[Stage, int] = {
            "train": sum(bool(block.train) for block in todo),
            **{stage: sum(len(block.sharded.get(stage, ())) for block in todo) for stage in SHARD_STAGES},
            "aggregate": 1,
        }
        parallel = self.executor.config.max_parallel
        self.num_lanes = {stage: num if parallel is None else min(num, parallel) for stage, num in num_arrays.items()}
        try:
            self._blocks(todo)
        except SubmitLimitError as error:
            self.limit = str(error)
        if self.plan.aggregate is not None:
            self._aggregate(self.plan.aggregate)

    def outcome(self, problem: str | None = None) -> Outcome:
        """What was submitted, and what is left."""
        done = {unit.name for unit in self.handed_over}
        return Outcome(
            failures=(),
            skipped=(),
            num_queued=len(self.handed_over),
            jobs=tuple(self.jobs),
            left=tuple(unit for unit in self.plan.units if unit.name not in done),
            limit=self.limit,
            problem=problem,
        )

    def _blocks(self, todo: list[Block]) -> None:
        waiting = list(todo)
        while waiting:
            block, num_before = waiting.pop(0), len(self.jobs)
            try:
                waiting = self._fitting(block, waiting)
            except SubmitLimitError:
                # If its first array was accepted, the next launch submits the rest of the block.
                if block.width == 1 or len(self.jobs) > num_before:
                    raise
                waiting = [*block.split(block.width // 2), *waiting]

    def _fitting(self, block: Block, waiting: list[Block]) -> list[Block]:
        """Submit a block, or as much of it as there is room for; returns the blocks that are left."""
        width = block.width_within(self.room)
        if not width and not self.jobs and not self.executor.activity.in_progress:
            width = 1  # at least its training, or no launch would make progress
        if not width:
            raise SubmitLimitError(self._limit())
        if width < block.width:
            block, rest = block.split(width)
            waiting = [rest, *waiting]
        self._block(block)
        return waiting

    def _limit(self) -> str:
        config, activity = self.executor.config, self.executor.activity
        return f"cluster.max_queued={config.max_queued} and {activity.num_tasks} tasks in your queue before this launch"

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

    def _aggregate(self, unit: Unit) -> None:
        """Submit the aggregation after everything else, and cancel an earlier one, which waits for less."""
        activity = self.executor.activity
        if self.jobs and unit.name in activity.queued:
            queue.cancel([activity.tasks[unit.name]])
            self.room += 1
        if self.limit is not None:
            return
        ours = units_of(self.executor.manifest, activity.tasks)
        before = sorted({*self.jobs, *activity.arrays_with(ours)}, key=int)
        try:
            self._array("aggregate", ((unit,),), "afterany:" + ":".join(before) if before else None)
        except SubmitLimitError as error:
            self.limit = str(error)

    def _array(
        self, stage: Stage, tasks: tuple[Task, ...], dependency: str | None = None, *, num_processes: int = 1
    ) -> str:
        if len(tasks) > self.room:
            raise SubmitLimitError(self._limit())
        after = self.executor.config.after
        if dependency is None and after is not None:
            dependency = f"afterok:{after}" if str(after)[0].isdigit() else str(after)
        name = ArrayName(grid=self.grid, launch=self.launch_id, array=f"{stage}-{len(self.arrays[stage])}")
        limit_min = self.executor.limit_min(stage, tasks)
        folder = ledger.write_tasks(self.store, name, [[unit.name for unit in task] for task in tasks], limit_min)
        try:
            parameters = self.executor.parameters(
                name,
                self.code,
                folder,
                tasks,
                num_lanes=self.num_lanes[stage],
                num_processes=num_processes,
                dependency=",".join(filter(None, [dependency, self._lane_ahead(stage)])) or None,
            )
            job = self._submit(stage, folder, parameters, len(tasks))
        except (SubmitLimitError, SubmissionRefusedError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            hint = advice(str(error), stage, self.executor.config.stage(stage))
            raise type(error)(f"{stage}: {error}" + (f" ({hint})" if hint else "")) from error
        self.jobs.append(job)
        self.arrays[stage].append(job)
        self.handed_over += [unit for task in tasks for unit in task]
        self.room -= len(tasks)
        return job

    def _lane_ahead(self, stage: Stage) -> str | None:
        """The array that the next array of a stage waits for, so that no more than ``max_parallel`` tasks run.

        SLURM limits single arrays, but not several together. So a stage has lanes. Each lane has its share of
        the limit and runs one array after another.
        """
        ahead = self.arrays[stage][-self.num_lanes[stage] :]
        if self.executor.config.max_parallel is None or len(ahead) < self.num_lanes[stage]:
            return None
        return f"afterany:{ahead[0]}"

    def _submit(self, stage: Stage, folder: Path, parameters: dict[str, Any], num_tasks: int) -> str:
        executor = self.executor
        python, exclude = (executor.config.option(stage, name) for name in ("python", "exclude"))
        try:
            return submit(folder, parameters, num_tasks, python, executor.cluster)
        except SubmissionRefusedError:
            if parameters.get("exclude") == exclude:
                raise
            parameters["exclude"] = exclude  # no node is left, so avoid fewer
            return submit(folder, parameters, num_tasks, python, executor.cluster)
