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


@dataclass(kw_only=True)
class Submission:
    """Submits the arrays of one plan; SLURM runs them after the launch has returned."""

    plan: Plan
    manifest: Manifest  # the grid that is launched
    store: Store
    config: SlurmConfig  # sbatch options and limits
    activity: Activity  # what is already in progress
    # The last failure of each unit that may be submitted again, by its name; nodes that caused one are avoided
    failures: Mapping[str, Failure]
    runs_per_gpu: int  # units that a job runs at a time; it multiplies ``units_per_job``
    launch_id: str = field(default="LAUNCH", init=False)
    jobs: list[str] = field(default_factory=list, init=False)  # what has been submitted so far; likewise below
    handed_over: list[Unit] = field(default_factory=list, init=False)
    arrays: dict[Stage, list[str]] = field(default_factory=lambda: {stage: [] for stage in STAGES}, init=False)
    num_lanes: dict[Stage, int] = field(default_factory=dict, init=False)
    limit: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.store = Store(self.store.root.resolve())  # jobs start in other folders
        self.code = self.store.code_dir("CODE")
        self.cluster = self.config.clusters or commands.default_cluster()
        max_queued = self.config.max_queued  # the room is the number of tasks that may still be queued
        self.room = math.inf if max_queued is None else max(0, max_queued - self.activity.num_tasks)

    def preview(self) -> str:
        """The text for sbatch of the first array of each stage."""
        texts = []
        for stage in STAGES:
            units = [unit for unit in self.plan.units if unit.stage == stage]
            if units:
                name = self._next_array(stage)
                folder = self.store.array_dir(*name)
                parameters = self._parameters(name, folder, num_processes=units[0].num_processes)
                text = script(folder, parameters, min(1000, len(units)), self.config.option(stage, "python"))
                texts.append(f"\n--- sbatch, {stage}\n{text}\n")
        return "".join(texts)

    def run(self, resources: Resources) -> Outcome:
        """Submit all units, or as many as SLURM accepts now."""
        store, config, grid = self.store, self.config, self.manifest.grid
        self.launch_id, copies = ledger.new_launch_id(store, grid), set(store.code_copies())
        self.code = take_snapshot(store)
        todo = blocks(
            self.plan,
            units_per_job=config.units_per_job * self.runs_per_gpu,
            max_array_size=config.max_array_size or queue.max_array_size(self.cluster),
            in_training={name.partition("/")[2] for name in self.activity.in_progress if name.startswith("train/")},
        )
        launch = Launch(
            manifest=self.manifest,
            resources=resources,
            grace_s=max(1, min(30, config.signal_delay_s // 2)),
            runs_per_gpu=self.runs_per_gpu,
            cluster=self.cluster,
            signal_delay_s=config.signal_delay_s,
            stall_min=config.stall_min,
            asked={stage: config.asked(stage) for stage in STAGES},
        )
        ledger.write_launch(store, self.launch_id, launch)
        problem = None
        try:
            self._hand_over(todo)
        except SubmissionRefusedError as error:
            problem = f"SLURM refuses: {error}; nothing was submitted"
            try:
                queue.cancel_jobs(self.jobs, self.cluster)
                self.jobs, self.handed_over = [], []
            except SchedulerError as silence:
                problem = f"SLURM refuses: {error}; what was submitted before could not be cancelled ({silence})"
        except SchedulerError as error:
            return self._outcome(str(error))  # it may have accepted an array without confirming it
        if not self.jobs:
            shutil.rmtree(store.launch_dir(grid, self.launch_id), ignore_errors=True)
            if self.code not in copies:
                shutil.rmtree(self.code, ignore_errors=True)
        return self._outcome(problem)

    def _outcome(self, problem: str | None) -> Outcome:
        done = {unit.name for unit in self.handed_over}
        return Outcome(
            num_queued=len(self.handed_over),
            jobs=tuple(self.jobs),
            left=tuple(unit for unit in self.plan.units if unit.name not in done),
            limit=self.limit,
            problem=problem,
        )

    def _hand_over(self, todo: Sequence[Block]) -> None:
        """Submit all blocks and then the aggregation, or as much as SLURM accepts now."""
        num_arrays: dict[Stage, int] = {
            "train": sum(bool(block.train) for block in todo),
            **{stage: sum(len(block.sharded.get(stage, ())) for block in todo) for stage in SHARD_STAGES},
            "aggregate": 1,
        }
        self.num_lanes = {stage: min(num, self.config.max_parallel or num) for stage, num in num_arrays.items()}
        try:
            self._blocks(todo)
        except SubmitLimitError as error:
            self.limit = str(error)
        if self.plan.aggregate is not None:
            self._aggregate(self.plan.aggregate)

    def _blocks(self, todo: Sequence[Block]) -> None:
        waiting = list(todo)
        while waiting:
            block, num_before = waiting.pop(0), len(self.jobs)
            # At least its training, or no launch would make progress
            least = 0 if self.jobs or self.activity.in_progress else 1
            width = max(least, block.width_within(self.room))
            if not width:
                raise SubmitLimitError(self._limit())
            if width < block.width:
                block, rest = block.split(width)
                waiting.insert(0, rest)
            try:
                self._block(block)
            except SubmitLimitError:
                # If its first array was accepted, the next launch submits the rest of the block.
                if block.width == 1 or len(self.jobs) > num_before:
                    raise
                waiting = [*block.split(block.width // 2), *waiting]

    def _limit(self) -> str:
        before = f"{self.activity.num_tasks} tasks in your queue before this launch"
        return f"cluster.max_queued={self.config.max_queued} and {before}"

    def _block(self, block: Block) -> None:
        corresponding = None
        if block.train:
            corresponding = f"aftercorr:{self._array('train', block.train, num_processes=block.num_processes)}"
        if block.after_earlier_training:
            models = {f"train/{unit.name.split('/')[1]}" for unit in block.units}
            earlier = self.activity.arrays_with(models)
            corresponding = "afterany:" + ":".join(earlier) if earlier else None
        for stage, arrays in block.sharded.items():
            for tasks in arrays:
                self._array(stage, tasks, corresponding)

    def _aggregate(self, unit: Unit) -> None:
        """Submit the aggregation after everything else, and cancel an earlier one, which waits for less."""
        if self.jobs and unit.name in self.activity.queued:
            queue.cancel([self.activity.tasks[unit.name]])
            self.room += 1
        if self.limit is not None:
            return
        ours = units_of(self.manifest, self.activity.tasks)
        before = sorted({*self.jobs, *self.activity.arrays_with(ours)}, key=int)
        try:
            self._array("aggregate", ((unit,),), "afterany:" + ":".join(before) if before else None)
        except SubmitLimitError as error:
            self.limit = str(error)

    def _array(
        self, stage: Stage, tasks: Sequence[Task], dependency: str | None = None, *, num_processes: int = 1
    ) -> str:
        """Submit an array; returns its job id."""
        if len(tasks) > self.room:
            raise SubmitLimitError(self._limit())
        after, name = self.config.after, self._next_array(stage)
        if dependency is None and after is not None:
            dependency = f"afterok:{after}" if str(after)[0].isdigit() else str(after)
        folder = self.store.array_dir(*name)
        parameters = self._parameters(
            name,
            folder,
            tasks,
            num_lanes=self.num_lanes[stage],
            num_processes=num_processes,
            dependency=",".join(filter(None, [dependency, self._lane_ahead(stage)])) or None,
        )
        ledger.write_tasks(self.store, name, [[unit.name for unit in task] for task in tasks], parameters["time"])
        try:
            job = self._submit(stage, folder, parameters, len(tasks))
        except (SubmitLimitError, SubmissionRefusedError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            hint = advice(str(error), stage, self.config.stage(stage))
            raise type(error)(f"{stage}: {error}" + (f" ({hint})" if hint else "")) from error
        self.jobs.append(job)
        self.arrays[stage].append(job)
        self.handed_over += [unit for task in tasks for unit in task]
        self.room -= len(tasks)
        return job

    def _next_array(self, stage: Stage) -> ArrayName:
        return ArrayName(self.manifest.grid, self.launch_id, f"{stage}-{len(self.arrays[stage])}")

    def _parameters(self, name: ArrayName, folder: Path, tasks: Sequence[Task] = (), **more: Any) -> dict[str, Any]:
        """sbatch options of an array of these tasks, given their earlier failures; see ``sbatch_parameters``."""
        failed = [failure for task in tasks for unit in task if (failure := self.failures.get(unit.name))]

        def num_failures(failure_class: FailureClass) -> int:
            return max((failure.counts[failure_class] for failure in failed), default=0)

        stage, own = self.config.stage(name.stage), self.config.option(name.stage, "exclude")
        return sbatch_parameters(
            self.config,
            name,
            self.code,
            folder,
            exclude=",".join(sorted({*filter(None, [own]), *bad_nodes(self.failures.values())})) or None,
            memory_gb=stage.memory_gb(num_failures("host_oom")),
            limit_min=stage.limit_min(num_failures("timeout")),
            **more,
        )

    def _lane_ahead(self, stage: Stage) -> str | None:
        """The array that the next array of a stage waits for, so that no more than ``max_parallel`` tasks run.

        SLURM limits single arrays, but not several together. So a stage has lanes. Each lane has its share of
        the limit and runs one array after another.
        """
        ahead = self.arrays[stage][-self.num_lanes[stage] :]
        if self.config.max_parallel is None or len(ahead) < self.num_lanes[stage]:
            return None
        return f"afterany:{ahead[0]}"

    def _submit(self, stage: Stage, folder: Path, parameters: dict[str, Any], num_tasks: int) -> str:
        python, exclude = (self.config.option(stage, name) for name in ("python", "exclude"))
        try:
            return submit(folder, parameters, num_tasks, python, self.cluster)
        except SubmissionRefusedError:
            if parameters.get("exclude") == exclude:
                raise
            parameters["exclude"] = exclude  # no node is left, so avoid fewer
            return submit(folder, parameters, num_tasks, python, self.cluster)
