"""Limits of what is in the queue, and of what runs, against fake commands of SLURM."""

import os
import re
from collections import Counter
from pathlib import Path

import pytest

from configs.entry import run_command
from jobs.files.store import Store
from pipeline.launch import launch
from pipeline.state.activity import slurm_activity
from pipeline.state.queue import read_queue
from tests.grids import tiny
from tests.pipeline.fake_slurm import FakeSlurm

NINE = "grid.blocks=[{method: gaussian, sigma: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]}]"


def _launch(results: Path, *more: str) -> int:
    return run_command("launch", launch, tiny(results, "cluster=slurm", *more))


def _in_progress(results: Path) -> Counter[str]:
    """How many units of each stage are in the queue."""
    return Counter(name.partition("/")[0] for name in slurm_activity(Store(results), "tiny", read_queue()).in_progress)


def test_waves_of_several_units_in_one_job_stay_within_the_limit(fake: FakeSlurm, results: Path) -> None:
    options = [NINE, "cluster.units_per_job=3", "cluster.max_queued=6"]
    assert _launch(results, *options) == 0
    assert len(read_queue()) == 4  # three models and their shards; there is no room for three more
    assert _launch(results, *options) == 0
    assert len(read_queue()) == 4
    assert _launch(results, *options, "cluster.max_queued=12") == 0
    assert len(read_queue()) == 12
    assert _launch(results, *options, "cluster.max_queued=13") == 0
    assert _in_progress(results) == {"train": 9, "certify": 27, "aggregate": 1}


@pytest.mark.parametrize("limit", [1, 5, 12])
def test_a_limit_below_what_is_queued_already_takes_nothing_more(fake: FakeSlurm, results: Path, limit: int) -> None:
    assert _launch(results) == 0
    assert len(read_queue()) == 13
    assert _launch(results, "certify.indices.stop=60", "cluster.num_shards=1", f"cluster.max_queued={limit}") == 0
    assert len(read_queue()) == 13


def test_jobs_of_others_count_too(fake: FakeSlurm, results: Path) -> None:
    fake.answer("squeue", f"seq 0 6 | sed 's/.*/900|&|R|notebook|n1|{os.getuid()}||N\\/A|None/'")
    assert _launch(results, "cluster.max_queued=11") == 0
    assert _in_progress(results) == {"train": 1, "certify": 3}


def test_models_with_more_shards_than_others_count_in_full(fake: FakeSlurm, results: Path) -> None:
    blocks = "grid.blocks=[{method: gaussian, sigma: 0.25, sigma_cert: [0.25, 0.3]}, {method: gaussian, sigma: 0.5}]"
    assert _launch(results, blocks, "cluster.max_queued=6") == 0
    assert len(read_queue()) <= 6


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_limit_below_one_model_with_its_shards_gets_on_all_the_same(
    fake: FakeSlurm, results: Path, limit: int
) -> None:
    assert _launch(results, f"cluster.max_queued={limit}") == 0
    assert len(read_queue()) <= limit
    assert _in_progress(results)["train"] == 1


def test_a_launch_that_finds_no_room_says_so(
    fake: FakeSlurm, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["cluster.max_queued=4"]
    assert _launch(results, *options) == 0
    out = capsys.readouterr().out
    assert "submitted 4 units in 4 arrays" in out
    assert "9 units not submitted, to stay within the limit on queued jobs" in out
    folders = set(Store(results).launches_dir("tiny").iterdir())
    assert _launch(results, *options) == 0
    captured = capsys.readouterr()
    assert "nothing was submitted: 9 units would exceed the limit" in captured.err
    assert "cluster.max_queued=4 and 4 tasks in your queue before this launch" in captured.err
    assert "complete" not in captured.out
    assert set(Store(results).launches_dir("tiny").iterdir()) == folders


def test_a_launch_that_the_site_s_limit_leaves_no_room_says_so(
    fake: FakeSlurm, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for call in range(2, 20):
        fake.answer(f"sbatch.{call}", "echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2; exit 1")
    assert _launch(results) == 0
    capsys.readouterr()
    assert _launch(results) == 0
    captured = capsys.readouterr()
    assert "nothing was submitted: 10 units would exceed the limit" in captured.err
    assert "QOSMaxSubmitJobPerUserLimit" in captured.err
    assert "complete" not in captured.out


def test_where_nothing_is_queued_for_lack_of_room_the_launch_has_failed(
    fake: FakeSlurm, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.answer("squeue", f"seq 0 6 | sed 's/.*/900|&|R|notebook|n1|{os.getuid()}||N\\/A|None/'")
    assert _launch(results, "cluster.max_queued=7") == 1
    error = capsys.readouterr().err
    assert "nothing was submitted: 13 units would exceed the limit" in error
    assert "SLURM" not in error


def _at_a_time(fake: FakeSlurm, stage: str) -> int:
    """The most tasks of a stage that SLURM may run at a time: of the arrays that wait for no other of it."""
    names, limits, waits = fake.option("job-name"), fake.option("array"), fake.option("dependency")
    ids = [index + 1 for index, name in enumerate(names) if str(name).startswith(f"{stage}-")]
    ahead = {job: {int(found) for found in re.findall(r"afterany:(\d+)", str(waits[job - 1]))} & {*ids} for job in ids}
    share = {job: int(str(limits[job - 1]).rpartition("%")[2]) for job in ids}
    lanes: dict[int, int] = {}  # by the array that leads it
    lane_of: dict[int, int] = {}
    for job in ids:
        lane_of[job] = lane_of[min(ahead[job])] if ahead[job] else job
        lanes[lane_of[job]] = max(lanes.get(lane_of[job], 0), share[job])
    assert len({next(iter(jobs)) for jobs in ahead.values() if jobs}) == sum(map(bool, ahead.values()))
    return sum(lanes.values())


@pytest.mark.parametrize("limit", [1, 2, 5])
@pytest.mark.parametrize("max_array_size", [2, 1001])
def test_no_more_jobs_of_a_stage_run_at_a_time_than_may(
    fake: FakeSlurm, results: Path, limit: int, max_array_size: int
) -> None:
    (fake.folder / "max_array_size").write_text(str(max_array_size))
    assert _launch(results, NINE, f"cluster.max_parallel={limit}") == 0
    assert _in_progress(results) == {"train": 9, "certify": 27, "aggregate": 1}
    for stage in ("train", "certify"):
        assert 1 <= _at_a_time(fake, stage) <= limit


def test_an_array_keeps_to_its_training_and_to_its_lane(fake: FakeSlurm, results: Path) -> None:
    assert _launch(results, "cluster.max_parallel=2") == 0
    assert fake.option("array") == ["0-2%2", "0-2%1", "0-2%1", "0-2%1", "0-0%1"]
    assert fake.option("dependency") == [
        None,
        "aftercorr:1",
        "aftercorr:1",
        "aftercorr:1,afterany:2",
        "afterany:1:2:3:4",
    ]
