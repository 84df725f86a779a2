"""Limits of what is in the queue, and of what runs, against fake commands of SLURM."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from configs.entry import run_command
from jobs.store import Store
from pipeline.activity import slurm_activity
from pipeline.launch import launch
from pipeline.scheduler import read_queue
from tests.grids import tiny
from tests.pipeline.fake_slurm import FakeSlurm

NINE = "grid.blocks=[{method: gaussian, sigma: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]}]"


def _launch(results: Path, *more: str) -> int:
    return run_command("launch", launch, tiny(results, "cluster=slurm", *more))


def _under_way(results: Path) -> Counter[str]:
    """How many units of each stage are in the queue."""
    return Counter(name.partition("/")[0] for name in slurm_activity(Store(results), "tiny", read_queue()).under_way)


def test_waves_of_several_units_in_one_job_stay_within_the_limit(fake: FakeSlurm, results: Path) -> None:
    options = [NINE, "cluster.units_per_job=3", "cluster.max_queued=6"]
    assert _launch(results, *options) == 0
    assert len(read_queue()) == 4  # three models and their shards; there is no room for three more
    assert _launch(results, *options) == 0
    assert len(read_queue()) == 4
    assert _launch(results, *options, "cluster.max_queued=12") == 0
    assert len(read_queue()) == 12
    assert _launch(results, *options, "cluster.max_queued=13") == 0
    assert _under_way(results) == {"train": 9, "certify": 27, "aggregate": 1}


@pytest.mark.parametrize("limit", [1, 5, 12])
def test_a_limit_below_what_is_queued_already_takes_nothing_more(fake: FakeSlurm, results: Path, limit: int) -> None:
    assert _launch(results) == 0
    assert len(read_queue()) == 13
    assert _launch(results, "certify.indices.stop=60", "cluster.num_shards=1", f"cluster.max_queued={limit}") == 0
    assert len(read_queue()) == 13


def test_jobs_of_others_count_too(fake: FakeSlurm, results: Path) -> None:
    fake.answer("squeue", "seq 0 6 | sed 's/.*/900|&|R|notebook|n1|None/'")
    assert _launch(results, "cluster.max_queued=11") == 0
    assert _under_way(results) == {"train": 1, "certify": 3}


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
    assert _under_way(results)["train"] == 1


def test_a_launch_that_finds_no_room_says_so(
    fake: FakeSlurm, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["cluster.max_queued=4"]
    assert _launch(results, *options) == 0
    out = capsys.readouterr().out
    assert "submitted 4 units in 4 arrays" in out
    assert "9 units are beyond the limit of jobs in your queue: launch again when there is room" in out
    folders = set(Store(results).launches_dir("tiny").iterdir())
    assert _launch(results, *options) == 0
    captured = capsys.readouterr()
    assert "nothing was submitted: 9 units are beyond the limit" in captured.err
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
    assert "nothing was submitted: 10 units are beyond the limit" in captured.err
    assert "QOSMaxSubmitJobPerUserLimit" in captured.err
    assert "complete" not in captured.out


def test_where_nothing_is_queued_for_lack_of_room_the_launch_has_failed(
    fake: FakeSlurm, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.answer("squeue", "seq 0 6 | sed 's/.*/900|&|R|notebook|n1|None/'")
    assert _launch(results, "cluster.max_queued=7") == 1
    error = capsys.readouterr().err
    assert "nothing was submitted: 13 units are beyond the limit" in error
    assert "SLURM" not in error
