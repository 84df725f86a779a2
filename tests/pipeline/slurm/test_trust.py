"""Who may change what a job runs."""

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.files.store import Store
from pipeline.launch import launch
from pipeline.slurm.sbatch import take_snapshot, trust_lines
from pipeline.state import ledger
from pipeline.state.ledger import ArrayName, new_launch_id
from tests.grids import compose_tiny
from tests.pipeline.fake_slurm import FakeSlurm

ONE = ["grid.blocks=[{method: gaussian, sigma: 0.25}]", "train.epochs=1", "certify.indices.stop=2"]


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A results folder of a group: everything in it belongs to the group, and umask lets the group write."""
    results = tmp_path / "results"
    results.mkdir()
    results.chmod(0o2775)
    before = os.umask(0o002)
    yield results
    os.umask(before)


def _others_may_write(paths: list[Path]) -> list[Path]:
    return [path for path in paths if path.stat().st_mode & stat.S_IWGRP]


def test_only_its_owner_may_change_what_a_job_runs(fake: FakeSlurm, shared: Path) -> None:
    assert launch(compose_tiny(shared, "cluster=slurm", *ONE)) == 0
    (code,) = Store(shared).code_copies()
    (folder,) = Store(shared).launches_dir("tiny").iterdir()
    frozen = [folder, *folder.glob("*.json"), *folder.glob("*/tasks.json"), *folder.glob("*-*")]
    assert _others_may_write([code, *code.rglob("*"), *frozen]) == []
    assert _others_may_write([shared / "grids" / "tiny", shared / "grids" / "tiny" / "grid.json"])  # umask says so


def test_results_are_as_open_as_umask_and_folder_say(shared: Path) -> None:
    assert launch(compose_tiny(shared, "cluster=debug", *ONE)) == 0
    paths = [*shared.rglob("*")]
    assert len(paths) > 10
    assert [path for path in paths if path not in _others_may_write(paths)] == []
    assert all(path.stat().st_mode & stat.S_ISGID for path in paths if path.is_dir())


def test_another_user_s_copy_of_the_code_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    first = take_snapshot(store)
    assert take_snapshot(store) == first
    first.chmod(0o775)
    own = take_snapshot(store)
    assert own != first
    assert take_snapshot(store) == own


@pytest.mark.parametrize(
    "opened", [None, "code", "code/pipeline.py", "launch", "launch/launch.json", "launch/a/tasks.json"]
)
def test_a_job_refuses_in_writing_what_others_may_write(tmp_path: Path, opened: str | None) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "launch" / "a").mkdir(parents=True)
    for name in ("code/pipeline.py", "launch/launch.json", "launch/grid.json", "launch/a/tasks.json"):
        (tmp_path / name).touch()
    for path in tmp_path.rglob("*"):
        path.chmod(0o755)
    if opened:
        (tmp_path / opened).chmod(0o775)
    lines = [*trust_lines(tmp_path / "code", tmp_path / "launch" / "a"), "echo it runs"]
    done = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert done.returncode == (1 if opened else 0)
    said = f"ERROR refused to run: another user owns or can write {tmp_path / str(opened)}"
    assert said in done.stdout if opened else done.stdout == "it runs\n"


def test_launches_are_ordered_by_their_number_and_after_those_of_earlier_versions(tmp_path: Path) -> None:
    store = Store(tmp_path)
    launches = ["20261025-023000-ffffff", "20261025-021000-000000", *(f"{n:06d}-{9 - n}aaaaa" for n in range(1, 5))]
    for launch_id in launches:
        ledger.write_tasks(store, ArrayName(grid="g", launch=launch_id, array="train-0"), [["train/a"]], 60)
    found = [name.launch for name in ledger.arrays_of(store, "g")]
    assert found == [*launches[:1:-1], launches[0], launches[1]]
    assert new_launch_id(store, "g").startswith("000005-")


@pytest.mark.parametrize("grid", ["digits", "a.b-1", "train-0.x"])
def test_a_name_in_the_queue_begins_with_the_stage_and_leads_back(grid: str) -> None:
    name = ArrayName(grid=grid, launch="000012-abcdef", array="certify-3")
    assert str(name)[:8] == "certify-"
    assert ArrayName.parse(str(name)) == name
    earlier = ArrayName(grid=grid, launch="20260101-120000-abcdef", array="certify-3")
    assert ArrayName.parse(f"{grid}.20260101-120000-abcdef.certify-3") == earlier
    assert ArrayName.parse("certify.sh") is None
