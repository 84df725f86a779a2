import os
from pathlib import Path

import pytest

from jobs.files.failures import Failure, FailureClass, failures_of
from jobs.files.store import Store
from jobs.specs.units import TrainUnit
from pipeline.state import ledger
from pipeline.state.ledger import ArrayName
from pipeline.state.postmortem import find_deaths, record_deaths
from tests.grids import tiny_manifest

MANIFEST = tiny_manifest()
FIRST, SECOND, _ = (f"train/{run.train.key}" for run in MANIFEST.of("certify"))
NAME = ArrayName(grid="tiny", launch="20260101-120000-abcdef", array="train-0")
BEGIN = "2026-01-01 12:00:00,000 INFO begin {} on n7 gpus [0,1]\n"
STEP = "slurmstepd-n7: error: *** STEP 5.0 ON n7 CANCELLED AT 2026-01-01T12:01:00 {}***\n"


def _deaths(tmp_path: Path, text: str | None) -> list[Failure]:
    store = Store(tmp_path)
    folder = ledger.write_tasks(store, NAME, [[], [FIRST, SECOND]], 60)
    if text is not None:
        (folder / "5_1_0_log.out").write_text(text)
        os.utime(folder / "5_1_0_log.out", (1.7e9, 1.7e9))  # no sign of life for a long time
    deaths, alive = find_deaths(MANIFEST, store, is_pending=lambda name: name in (FIRST, SECOND), recorded={})
    assert alive == set()
    return deaths


@pytest.mark.parametrize(
    ("text", "failure_class"),
    [
        (BEGIN.format(FIRST), "unknown"),
        (BEGIN.format(FIRST) + STEP.format("DUE TO TIME LIMIT "), "timeout"),
        (BEGIN.format(FIRST) + STEP.format("DUE TO PREEMPTION "), "preempted"),
        (BEGIN.format(FIRST) + STEP.format("DUE TO NODE FAILURE, SEE SLURMCTLD LOG "), "node_fail"),
        (BEGIN.format(FIRST) + "slurmstepd: error: Step 5.0 exceeded memory limit (8 > 5), being killed\n", "host_oom"),
        (BEGIN.format(FIRST) + "slurmstepd: error: Detected 1 oom_kill event in StepId=5.0.\n", "host_oom"),
        # A first attempt that was queued again does not tell of the second.
        (BEGIN.format(FIRST) + STEP.format("DUE TO PREEMPTION ") + BEGIN.format(FIRST), "unknown"),
        (BEGIN.format(FIRST) + f"x WARNING interrupted {FIRST}\n" + STEP.format("DUE TO TIME LIMIT "), "timeout"),
    ],
)
def test_the_log_tells_of_what_a_unit_died(tmp_path: Path, text: str, failure_class: FailureClass) -> None:
    (death,) = _deaths(tmp_path, text)
    assert (death.unit, death.failure_class) == (FIRST, failure_class)
    assert (death.host, death.gpus, death.job) == ("n7", "0,1", "5_1")
    assert death.attempt == 1


JOB_BEGINS = "2026-01-01 12:00:00 INFO job begins: tiny.x.train-0 task 1 on n7, job 5_1, start 0\n"


@pytest.mark.parametrize(
    ("said", "failure_class"),
    [
        ("", "setup"),
        ("bash: line 3: module: command not found\nx ERROR the setup ended with exit code 127\n", "setup"),
        ("x: No module named pipeline\nsrun: error: n7: tasks 0: Exited with exit code 1\n", "setup"),
        (STEP.format("DUE TO TIME LIMIT "), "timeout"),
        (STEP.format("DUE TO NODE FAILURE "), "node_fail"),
    ],
)
def test_a_job_that_ends_before_its_first_unit_is_a_failure_of_all_its_units(
    tmp_path: Path, said: str, failure_class: FailureClass
) -> None:
    earlier = JOB_BEGINS + BEGIN.format(FIRST) + STEP.format("DUE TO PREEMPTION ")
    deaths = _deaths(tmp_path, earlier + JOB_BEGINS + said)
    assert [(death.unit, death.failure_class) for death in deaths] == [(FIRST, failure_class), (SECOND, failure_class)]
    assert {(death.host, death.job) for death in deaths} == {("n7", "5_1")}
    assert {Path(death.log_path).name for death in deaths} == {"5_1_0_log.out"}
    assert all(line.strip() in deaths[0].message for line in said.splitlines())


@pytest.mark.parametrize(
    "text",
    [
        JOB_BEGINS + STEP.format(""),  # cancelled by somebody
        JOB_BEGINS + f"x WARNING skipped {FIRST}: there is no checkpoint\n",
        None,  # it never began
        "",
        "submitit ERROR before the first unit\n",
        BEGIN.format(FIRST) + f"x ERROR failed {FIRST}: of its own, and written down\n",
        BEGIN.format(FIRST) + f"x INFO end {FIRST}\n",
        BEGIN.format(FIRST) + STEP.format(""),  # cancelled by somebody
        BEGIN.format(FIRST) + f"x WARNING interrupted {FIRST}\n",  # and saved
    ],
)
def test_what_ended_otherwise_is_no_death(tmp_path: Path, text: str | None) -> None:
    assert _deaths(tmp_path, text) == []


def test_of_several_units_in_a_job_the_last_to_begin_died(tmp_path: Path) -> None:
    text = BEGIN.format(FIRST) + f"x INFO end {FIRST}\n" + BEGIN.format(SECOND)
    (death,) = _deaths(tmp_path, text)
    assert death.unit == SECOND


def test_of_several_tasks_the_one_that_failed_says_why(tmp_path: Path) -> None:
    store = Store(tmp_path)
    exited = "srun: error: n7: task 2: Exited with exit code 1\n"
    assert [death.message for death in _deaths(tmp_path, BEGIN.format(FIRST) + exited + STEP.format(""))] == [
        exited.strip()
    ]
    (log,) = store.array_dir(NAME.grid, NAME.launch, NAME.array).glob("*_0_log.out")
    other = log.with_name("5_1_2_log.out")
    other.write_text(BEGIN.format(FIRST) + f"x rank 2 ERROR failed {FIRST}: the process was killed\n")
    (death,) = _deaths(tmp_path, None)
    assert (death.failure_class, death.message) == ("unknown", f"failed {FIRST}: the process was killed ({other})")


def test_a_death_is_written_down_once(tmp_path: Path) -> None:
    deaths = _deaths(tmp_path, BEGIN.format(FIRST))
    (failure,) = record_deaths(deaths, MANIFEST, Store(tmp_path))
    unit = TrainUnit(train=MANIFEST.of("certify")[0].train)
    assert failures_of(Store(tmp_path), unit) == [failure]
    recorded = {FIRST: failure}
    assert find_deaths(MANIFEST, Store(tmp_path), is_pending=lambda name: True, recorded=recorded) == ([], set())


def test_only_the_latest_job_of_a_unit_counts(tmp_path: Path) -> None:
    _deaths(tmp_path, BEGIN.format(FIRST))
    later = ArrayName(grid="tiny", launch="20260101-130000-abcdef", array="train-0")
    ledger.write_tasks(Store(tmp_path), later, [[FIRST, SECOND]], 60)  # cancelled before it began
    assert find_deaths(MANIFEST, Store(tmp_path), is_pending=lambda name: True, recorded={}) == ([], set())


def test_names_of_arrays_lead_back_to_their_folders(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = ledger.write_tasks(store, NAME, [[FIRST]], 60)
    assert ArrayName.parse(str(NAME)) == NAME
    assert ledger.locate(folder) == (store, NAME)
    assert ledger.read_tasks(store, NAME) == [[FIRST]]
    assert [ArrayName.parse(other) for other in ("bash", "tiny.x.train-0", "tiny.20260101-120000-abcdef.other-0")] == [
        None
    ] * 3
