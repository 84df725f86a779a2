"""Units on GPUs of their own and on shared ones: who gets which, and what a job with several of them does."""

import json
import logging
import os
import re
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType

import pyarrow as pa
import pytest

from configs.entry import run_command
from jobs.files.failures import failures_of
from jobs.files.store import Store
from jobs.specs.units import AggregateUnit, Resources, ShardUnit, TrainUnit, Unit
from pipeline.launch import launch
from pipeline.local import gpus
from pipeline.local.gpus import choose_gpus, num_gpus_of, visible_gpus
from pipeline.slurm import task
from pipeline.slurm.task import ArrayTask
from pipeline.state import ledger
from pipeline.state.ledger import ArrayName, Launch
from pipeline.state.postmortem import find_deaths
from tests.grids import as_range, grid_records, tiny, tiny_manifest
from tests.pipeline.fake_slurm import FakeSlurm

MANIFEST = tiny_manifest()
TRAININGS = [TrainUnit(train=run.train) for run in MANIFEST.of("certify")]


@pytest.mark.parametrize(
    ("in_use", "num_needed", "runs_per_gpu", "expected"),
    [
        ([], 1, 1, ("a",)),
        ([("a",)], 1, 1, ("b",)),
        ([("a",), ("b",)], 1, 1, None),
        ([("a",), ("b",)], 1, 2, ("a",)),
        ([("a",), ("a",), ("b",)], 1, 3, ("b",)),  # the least used one
        ([("a",), ("a",), ("b",), ("b",)], 1, 2, None),
        ([], 2, 1, ("a", "b")),
        ([("a",)], 2, 4, None),  # several are not shared
        ([("a", "b")], 1, 4, None),
        ([], 3, 1, ("a", "b")),  # all there are, and its own error says that they are too few
        ([("a",), ("b",)], 0, 1, ()),
    ],
)
def test_who_gets_which_gpu(
    in_use: list[tuple[str, ...]], num_needed: int, runs_per_gpu: int, expected: tuple[str, ...] | None
) -> None:
    assert choose_gpus(("a", "b"), in_use, num_needed=num_needed, runs_per_gpu=runs_per_gpu) == expected


def test_what_units_work_on() -> None:
    run = MANIFEST.of("certify")[0]
    units: list[Unit] = [
        TrainUnit(train=run.train),
        TrainUnit(train=replace(run.train, num_processes=4)),
        ShardUnit(run=run, indices=as_range(run.indices)),
        AggregateUnit(grid="tiny"),
    ]
    assert [num_gpus_of(unit) for unit in units] == [1, 4, 1, 0]


@pytest.mark.parametrize(
    ("named", "expected"),
    [("0,1", ("0", "1")), (" GPU-1 ,MIG-2", ("GPU-1", "MIG-2")), ("", ()), ("-1", ()), ("2,-1,3", ("2",))],
)
def test_gpus_are_those_that_this_process_may_use(
    named: str, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == expected


@pytest.mark.parametrize(
    ("shell", "expected"),
    [("echo GPU-1; echo GPU-2", ("GPU-1", "GPU-2")), ("echo no devices were found; exit 6", ()), ("sleep 30", ())],
)
def test_else_nvidia_smi_is_asked(
    tmp_path: Path, shell: str, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n{shell}\n")
    command.chmod(0o755)
    monkeypatch.setattr(gpus, "_PATIENCE_S", 1.0)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["cluster.runs_per_gpu=0"], "cluster.runs_per_gpu: input should be greater than or equal to 1, got 0"),
        (["cluster.runs_per_gpu=two"], "cluster.runs_per_gpu: input should be a valid integer, got 'two'"),
        (["cluster=debug", "cluster.runs_per_gpu=2"], "debug runs one unit at a time"),
        (["cluster=local", "cluster.device=cpu", "cluster.runs_per_gpu=2"], "cluster.device=cpu uses no GPU"),
        (["cluster.runs_per_gpu=2", "cluster.train.gpus=2"], "cluster.train.gpus is 2; set it to 1"),
        (["cluster.runs_per_gpu=2", "cluster.certify.gpus=0"], "cluster.certify.gpus is 0; set it to 1"),
        (["cluster.runs_per_gpu=2", "+train.num_processes=2"], "a model with num_processes above 1 has its GPUs"),
    ],
)
def test_what_cannot_share_is_a_bad_configuration(
    tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("launch", launch, tiny(tmp_path / "results", *options)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_the_pool_shares_gpus(tmp_path: Path, undisturbed_records: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes on a CPU, told of two GPUs: each sees one of them, and never more than two see the same."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    options = ["cluster=local", "cluster.max_workers=null", "cluster.runs_per_gpu=2"]
    assert run_command("launch", launch, tiny(tmp_path, *options)) == 0
    assert grid_records(tmp_path).equals(undisturbed_records)
    changes: dict[str, list[tuple[str, int]]] = {"4": [], "7": []}
    for log in (Store(tmp_path).grid_dir("tiny") / "logs").rglob("*.log"):
        if log.stem == "aggregate":
            assert "gpus []" in log.read_text()
            continue
        (begun,) = re.findall(r"^(\S+ \S+) INFO begin .*gpus \[(\d)\]", log.read_text(), re.MULTILINE)
        (ended,) = re.findall(r"^(\S+ \S+) INFO end", log.read_text(), re.MULTILINE)
        changes[begun[1]] += [(begun[0], 1), (ended, -1)]
    most = []
    for own in changes.values():
        at_work = [sum(change for _, change in sorted(own)[:stop]) for stop in range(1, len(own) + 1)]
        most.append(max(at_work))
    assert max(most) == 2
    assert min(most) >= 1


def _task(store: Store, units: list[Unit], runs_per_gpu: int = 2) -> ArrayTask:
    frozen = Launch(
        manifest=MANIFEST,
        resources=Resources(device="cpu"),
        grace_s=20,
        runs_per_gpu=runs_per_gpu,
    )
    return ArrayTask(store=store, grid="tiny", units=units, launch=frozen, time_limit_min=60)


def test_a_job_runs_two_units_at_a_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path)
    with caplog.at_level(logging.INFO):
        _task(store, [*TRAININGS])()
    assert all(store.is_trained(unit.train.key) for unit in TRAININGS)
    words = [record.getMessage().split()[0] for record in caplog.records if record.name == "root"]
    num_in_progress = [words[:stop].count("begin") - words[:stop].count("end") for stop in range(1, len(words) + 1)]
    assert max(num_in_progress) == 2
    assert num_in_progress[-1] == 0


def test_one_that_fails_leaves_the_other_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    bad = TrainUnit(train=replace(TRAININGS[0].train, learning_rate=1e30))
    _task(store, [bad, *TRAININGS[1:]])()
    (failure,) = failures_of(store, bad)
    assert failure.failure_class == "data"  # it diverged
    assert not store.is_trained(bad.train.key)
    assert all(store.is_trained(unit.train.key) and not failures_of(store, unit) for unit in TRAININGS[1:])


def _warned(job: ArrayTask, is_time: threading.Event) -> bool:
    """Run a job that is warned, as SLURM warns it, once a thread says so; whether it is to be queued again."""
    again: list[bool] = []

    def handle(number: int, frame: FrameType | None) -> None:
        again.append(job.interrupt())

    before = signal.signal(signal.SIGUSR1, handle)

    def warn() -> None:
        is_time.wait()  # at the latest until the job has ended
        os.kill(os.getpid(), signal.SIGUSR1)

    warner = threading.Thread(target=warn)
    warner.start()
    try:
        with pytest.raises(SystemExit):
            job()
    finally:
        is_time.set()
        warner.join()
        signal.signal(signal.SIGUSR1, before)
    return again[0]


def _when(condition: object) -> threading.Event:
    event = threading.Event()

    def watch() -> None:
        while not (event.is_set() or condition()):  # type: ignore[operator]
            time.sleep(0.01)
        event.set()

    threading.Thread(target=watch, daemon=True).start()
    return event


def test_a_warning_interrupts_both_and_the_next_start_goes_on(tmp_path: Path) -> None:
    store = Store(tmp_path)
    units: list[Unit] = [
        TrainUnit(train=replace(unit.train, epochs=epochs)) for unit, epochs in zip(TRAININGS, (24, 24, 1), strict=True)
    ]
    keys = [unit.train.key for unit in units if isinstance(unit, TrainUnit)]
    job = _task(store, units)

    def both_have_progress() -> bool:
        """One that is ahead waits for the other, or it might be done before the other begins."""
        for item in job._in_progress:
            if item.process.pid and store.saved_epochs(item.unit.train.key):  # type: ignore[union-attr]
                os.kill(item.process.pid, signal.SIGSTOP)
        has_progress = all(store.saved_epochs(key) or store.is_trained(key) for key in keys[:2])
        for item in job._in_progress if has_progress else ():
            os.kill(item.process.pid or 0, signal.SIGCONT)
        return has_progress

    assert _warned(job, _when(both_have_progress))
    assert not any(store.is_trained(key) for key in keys[:2])
    assert not store.run_dir(keys[2]).exists()  # was not begun any more
    saved = [store.saved_epochs(key)[-1] for key in keys[:2]]
    assert min(saved) >= 1
    assert not any(failures_of(store, unit) for unit in units)
    _task(store, units)()
    assert all(store.is_trained(key) for key in keys)
    for unit in units[:2]:
        log = store.log_path("tiny", unit.name).read_text()
        assert "resuming after epoch" in log


@pytest.mark.parametrize("has_progress", [False, True])
def test_a_time_limit_is_in_vain_only_if_no_unit_got_anywhere(
    tmp_path: Path, has_progress: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setattr(task, "_STARTED", time.monotonic() - 60 * 59.9)
    monkeypatch.setattr(
        task, "progress_of", lambda unit, store: time.monotonic() if has_progress and unit == units[0] else 0
    )
    units: list[Unit] = [TrainUnit(train=replace(unit.train, epochs=1000)) for unit in TRAININGS[:2]]
    logs = [store.log_path("tiny", unit.name) for unit in units]
    assert _warned(_task(store, units), _when(lambda: all(map(Path.exists, logs)))) == has_progress
    found = [[failure.failure_class for failure in failures_of(store, unit)] for unit in units]
    assert found == ([[], []] if has_progress else [["timeout"], ["timeout"]])


def test_slurm_s_jobs_hold_so_many_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, results = FakeSlurm(tmp_path / "slurm"), tmp_path / "results"
    monkeypatch.setenv("PATH", f"{fake.bin}:{os.environ['PATH']}")
    options = ["cluster=slurm", "cluster.runs_per_gpu=2", "grid.name=shared"]
    assert run_command("launch", launch, tiny(results, *options)) == 0
    assert fake.option("array") == [*["0-1%2"] * 4, "0-0%1"]
    (folder,) = Store(results).launches_dir("shared").iterdir()
    assert json.loads((folder / "launch.json").read_text())["runs_per_gpu"] == 2
    assert ledger.read_launch(folder).runs_per_gpu == 2
    fake.clear()
    assert run_command("launch", launch, tiny(results, *options, "cluster.units_per_job=2")) == 0
    assert fake.option("array") == [*["0-0%1"] * 4, "0-0%1"]  # two at a time, two after each other


def test_of_a_job_that_is_gone_every_unit_in_progress_has_died(tmp_path: Path) -> None:
    store, name = Store(tmp_path), ArrayName(grid="tiny", launch="20260101-120000-abcdef", array="train-0")
    first, second, third = (unit.name for unit in TRAININGS)
    folder = ledger.write_tasks(store, name, [[first, second, third]], 60)
    begin = "2026-01-01 12:00:00,000 INFO begin {} on n7 gpus [0]\n"
    lines = [begin.format(first), begin.format(second), f"x INFO end {first}\n", begin.format(third)]
    (folder / "5_0_0_log.out").write_text("".join(lines) + "slurmstepd: error: *** CANCELLED DUE TO NODE FAILURE ***\n")
    deaths, _ = find_deaths(MANIFEST, store, is_pending=lambda unit: unit != first, recorded={})
    assert [(death.unit, death.failure_class) for death in deaths] == [(second, "node_fail"), (third, "node_fail")]
