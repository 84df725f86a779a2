"""Launches that are killed, meet each other, are refused or limited: what SLURM then has, on the real cluster."""

import os
import shutil
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.files.store import Store
from pipeline.state.activity import slurm_activity
from pipeline.state.ledger import ArrayName, read_tasks
from pipeline.state.queue import read_queue
from tests.slurm.site import HALF, LITTLE, Site, release, slurm

HELD = ["+cluster.extra.hold=true", "cluster.units_per_job=1"]
"""Nothing starts, and every unit is a task of its own."""
# Another user, who may read everything (tests lie in folders of root's alone) but write only what permissions allow.
AS_NOBODY = [
    "setpriv",
    "--reuid=nobody",
    "--regid=nogroup",
    "--clear-groups",
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
]
UNITS = {"train": 2, "certify": 4, "aggregate": 1}
HALF_UNITS = {**UNITS, "train": 1}
LITTLE_UNITS = {"certify": 2, "aggregate": 1}


def _queued_units(store: Store) -> Counter[str]:
    """How many times each unit is in the queue."""
    units: Counter[str] = Counter()
    for task in read_queue():
        name = ArrayName.parse(task.job_name)
        tasks = None if name is None else read_tasks(store, name)
        units.update((tasks or [])[task.index])
    return units


def _assert_each_once(store: Store, expected: dict[str, int]) -> None:
    units = _queued_units(store)
    assert set(units.values()) == {1}, units
    assert Counter(unit.partition("/")[0] for unit in units) == expected


def _killing_sbatch(folder: Path, *, call: int, when: str) -> str:
    """A PATH on which the n-th sbatch kills the launch, before or after it has done its work."""
    folder.mkdir(exist_ok=True)
    count, wrapper = folder / "count", folder / "sbatch"
    count.unlink(missing_ok=True)
    kill = "grep -q pipeline.launch /proc/$PPID/cmdline && kill -9 $PPID"  # the launch calls sbatch itself
    lines = ["#!/bin/sh", f"echo >> {count}", f'[ "$(wc -l < {count})" = {call} ] || exec /usr/bin/sbatch "$@"']
    lines += [kill] if when == "before" else ['/usr/bin/sbatch "$@"', kill]
    wrapper.write_text("\n".join(lines) + "\n")
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    return f"{folder}:{os.environ['PATH']}"


def test_kill_9_of_the_launch_before_between_and_after_its_sbatch_calls(
    site: Site, undisturbed: pa.Table, undisturbed_site_results: Path
) -> None:
    before = site.copy_from(undisturbed_site_results, *HALF)
    # Training, certification, aggregation: every launch is killed around another call.
    for call, when, num_arrays in ((1, "before", 0), (1, "after", 1), (2, "before", 2), (1, "after", 3)):
        path = _killing_sbatch(site.folder / "bin", call=call, when=when)
        site.launch(*HELD, expect=-9, PATH=path)
        assert len({task.array_id for task in site.queue()}) == num_arrays
        assert set(_queued_units(site.store).values()) <= {1}
        queued = {unit for unit, state in site.states().items() if state == "queued"}
        assert queued == set(_queued_units(site.store))
    site.launch(*HELD)
    _assert_each_once(site.store, HALF_UNITS)
    release()
    site.finish()
    site.assert_complete(undisturbed, before)


def test_a_second_user_sees_whose_units_are_queued_and_submits_nothing(site: Site, undisturbed: pa.Table) -> None:
    """Both share a results folder through its group."""
    if subprocess.run([*AS_NOBODY, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no command can be run as another user here")
    site.results.mkdir()
    shutil.chown(site.results, group="nogroup")
    site.results.chmod(0o2775)
    umask = os.umask(0o002)
    try:
        site.launch(*HELD)
        queue = sorted(task.job_name for task in site.queue())
        cancel = [sys.executable, "-m", "pipeline.cancel", "grid=faults", f"results={site.results}"]
        for command, said in (
            (site.command(*HELD), "in progress: 0 units running, 7 queued"),
            (cancel, "note: 7 more jobs belong to root"),
            (site.status_command("verbose=true"), "submitted by root"),
        ):
            process = site.start([*AS_NOBODY, *command])
            text = "".join(site.end(process))
            assert process.returncode == 0, text
            assert said in text, text
        assert sorted(task.job_name for task in site.queue()) == queue
        _assert_each_once(site.store, UNITS)
        release()
        site.finish()
        site.assert_complete(undisturbed, {})
        process = site.start([*AS_NOBODY, *site.command(*HELD)])
        assert "nothing to do" in "".join(site.end(process))
    finally:
        os.umask(umask)


def test_two_launches_at_the_same_moment(site: Site, undisturbed: pa.Table, undisturbed_site_results: Path) -> None:
    before = site.copy_from(undisturbed_site_results, *LITTLE)
    launches = [site.start(site.command(*HELD)) for _ in range(2)]
    texts = ["".join(site.end(process)) for process in launches]
    codes = sorted(process.returncode for process in launches)
    # The second is refused, or comes late enough to find everything queued.
    assert codes == [0, 0] or (codes == [0, 1] and any("another launch is running" in text for text in texts))
    _assert_each_once(site.store, LITTLE_UNITS)
    release()
    site.finish()
    site.assert_complete(undisturbed, before)


def test_scancel_of_a_queued_array_and_of_a_running_task(
    site: Site, undisturbed: pa.Table, undisturbed_site_results: Path
) -> None:
    before = site.copy_from(undisturbed_site_results, "runs/*s0.25*", "grids/*/records.parquet")
    site.order_faults(**{"train/.*s0.25": "hang"})
    site.launch()
    site.await_(
        lambda: site.unit("train/.*s0.25").state == "running" and list(site.folder.glob("faults.json.train*")),
        "the unit that hangs",
    )
    activity = slurm_activity(site.store, "faults", site.queue())
    (certify_array,) = activity.arrays_with(
        [name for name in activity.tasks if "s0.25" in name and name.endswith("000000-000004-001")]
    )
    slurm("scancel", certify_array)
    slurm("scancel", activity.tasks[site.unit("train/.*s0.25").unit.name].job)
    site.await_(lambda: site.unit("train/.*s0.25").state not in ("running", "queued"), "the end of the cancelled task")
    site.await_(
        lambda: not [task for task in site.queue() if not task.is_stuck and task.is_running], "the end of what runs"
    )
    # SLURM takes a moment to see that what depends on the cancelled task can never run.
    site.await_(
        lambda: "queued" not in [state for name, state in site.states().items() if "s0.25" in name],
        "the end of what depends on it",
    )
    states = site.states()
    assert [state for name, state in states.items() if "s0.25" in name] == ["missing"] * 2
    assert "\nfailed   " not in site.status()  # somebody wanted it so
    site.finish()
    site.assert_complete(undisturbed, before)


def test_cancel_ends_the_jobs_of_its_grid_only(site: Site) -> None:
    site.launch(*HELD)
    site.launch(*HELD, "grid.name=other", "certify.n=500")
    before = {task.array_id for task in site.queue() if ".other." in task.job_name}
    command = ["-m", "pipeline.cancel", "grid=faults", f"results={site.results}"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True)
    assert "grid faults: cancelled 7 jobs, 0 of them running" in done.stdout
    site.await_(lambda: {task.array_id for task in site.queue()} == before, "the cancellation")
    assert set(site.states().values()) <= {"missing", "queued"}


def test_impossible_resources_are_refused_and_leave_nothing(
    site: Site, undisturbed: pa.Table, undisturbed_site_results: Path
) -> None:
    finished = site.copy_from(undisturbed_site_results, *LITTLE)
    before = _files(site.results)
    text = site.launch("cluster.certify.gpus=64", expect=1)
    assert "SLURM refuses: certify: " in text
    assert "nothing was submitted" in text
    site.await_idle()
    assert _files(site.results) == before
    assert list(site.store.launches_dir("faults").iterdir()) == []
    assert site.store.code_copies() == []
    assert set(site.states().values()) == {"missing", "done"}
    site.finish()
    site.assert_complete(undisturbed, finished)


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def submit_limit(cluster: None) -> Iterator[int]:
    user = ["modify", "user", "root", "set"]
    slurm("sacctmgr", "--immediate", *user, "MaxSubmitJobs=5")
    yield 5
    slurm("sacctmgr", "--immediate", *user, "MaxSubmitJobs=-1")


def test_submit_limits_are_respected_in_waves_that_the_next_launch_continues(site: Site, submit_limit: int) -> None:
    text = site.launch(*HELD)
    assert "not submitted, to stay within the limit on queued jobs" in text
    first = _queued_units(site.store)
    assert 0 < first.total() <= submit_limit
    site.launch(*HELD)  # there is room for what is left of the limit, and no more
    second = _queued_units(site.store)
    assert first <= second
    assert second.total() <= submit_limit
    slurm("sacctmgr", "--immediate", "modify", "user", "root", "set", "MaxSubmitJobs=-1")
    site.launch(*HELD)
    _assert_each_once(site.store, UNITS)


def test_one_s_own_limit_is_respected_too(site: Site) -> None:
    site.launch(*HELD, "cluster.max_queued=3")
    assert 0 < _queued_units(site.store).total() <= 3
    site.launch(*HELD)
    _assert_each_once(site.store, UNITS)


def test_no_more_jobs_of_a_stage_run_at_a_time_than_may(site: Site) -> None:
    site.launch("cluster.units_per_job=1", "cluster.max_parallel=1")
    arrays = {task.job_name.partition(".")[0] for task in site.queue()}
    assert {"train-0", "certify-0", "certify-1"} <= arrays
    most: Counter[str] = Counter()

    def is_over() -> bool:
        names = slurm("squeue", "-h", "-r", "-t", "RUNNING", "-o", "%j").split()
        running = Counter(name.partition("-")[0] for name in names)
        for stage, number in running.items():
            most[stage] = max(most[stage], number)
        return not site.queue()

    site.await_(is_over, "the end of all jobs")
    assert set(most.values()) == {1}
    assert set(site.states().values()) == {"done"}


def test_a_grid_larger_than_max_array_size(site: Site) -> None:
    sigmas = ",".join(f"{1 + number / 10000:.4f}" for number in range(1003))
    grid = f"grid.blocks=[{{method: gaussian, sigma: [{sigmas}]}}]"
    text = site.launch(*HELD, grid, "cluster.num_shards=1")
    assert "submitted 2,007 units in 5 arrays" in text
    sizes = Counter(task.job_name.partition(".")[0] for task in site.queue())
    assert sizes == {"train-0": 1001, "certify-0": 1001, "train-1": 2, "certify-1": 2, "aggregate-0": 1}
    assert set(_queued_units(site.store).values()) == {1}
