"""Status and launch find every file that is not whole; a launch sets it aside and makes again what is missing then."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.entry import run_command
from jobs.files.store import Store
from pipeline.launch import launch
from pipeline.status import status
from pipeline.verify import verify
from tests.grids import ATTACKED, grid_records, tiny
from tests.pipeline.fake_slurm import FakeSlurm

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut in half": lambda content: content[: len(content) // 2],
    "last byte cut": lambda content: content[:-1],
    "other text": lambda _: b"<html>The proxy says no.</html>\n",
}
damaged = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)


def _launch(results: Path, *more: str) -> int:
    return run_command("launch", launch, tiny(results, *ATTACKED, *more))


def _status(results: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert run_command("status", status, ["grid=tiny", f"results={results}"]) == 0
    return capsys.readouterr().out


def _is_harmless(path: Path, damage: Callable[[bytes], bytes]) -> bool:
    """Whether only the last line break of a text is lost."""
    return path.suffix == ".json" and damage is DAMAGES["last byte cut"]


@pytest.fixture
def results(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "results"))


@damaged
@pytest.mark.parametrize(
    ("pattern", "is_made_again"),
    [
        ("certify/*/000003-*.parquet", True),
        ("attack/*/000000-*.parquet", True),
        ("records.parquet", True),
        ("attack_records.parquet", True),
        ("checkpoint.pt", True),
        ("spec.json", True),
        ("epochs.parquet", False),  # only a training can write it
    ],
)
def test_a_file_that_is_not_whole_is_named_set_aside_and_made_again(
    results: Path,
    pattern: str,
    is_made_again: bool,
    damage: Callable[[bytes], bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = grid_records(results)
    (path,) = results.rglob(pattern)
    broken = damage(path.read_bytes())
    path.write_bytes(broken)
    text = _status(results, capsys)
    if _is_harmless(path, damage):
        assert "damaged" not in text
        return
    assert f"damaged  {path}\n" in text
    assert "1 file damaged" in text
    assert path.read_bytes() == broken, "status only reads"
    assert run_command("verify", verify, ["grid=tiny", f"results={results}"]) == 1
    assert f"error: {path}: " in capsys.readouterr().err
    assert _launch(results, "dry_run=true") == 0
    assert f"damaged  {path}\n" in capsys.readouterr().err
    assert path.read_bytes() == broken, "nor does a dry run change anything"
    assert _launch(results) == 0
    assert f"damaged  {path}\n         " in (said := capsys.readouterr().err)
    assert f"; renamed to {path.name}.rejected-1" in said
    assert path.with_name(f"{path.name}.rejected-1").read_bytes() == broken
    assert path.exists() == is_made_again
    assert "damaged" not in _status(results, capsys)
    assert run_command("verify", verify, ["grid=tiny", f"results={results}"]) == 0
    assert grid_records(results).equals(before)


@damaged
def test_a_manifest_that_is_not_whole_is_kept_and_written_again(
    results: Path, damage: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    path = Store(results).manifest_path("tiny")
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    code = run_command("status", status, ["grid=tiny", f"results={results}"])
    if _is_harmless(path, damage):
        assert (code, "damaged" in capsys.readouterr().out) == (0, False)
        return
    assert code == 2
    assert f"error: {path}: not a grid manifest" in capsys.readouterr().err
    assert _launch(results) == 0
    assert f"damaged  {path}\n" in capsys.readouterr().err
    assert path.read_bytes() == whole
    assert path.with_name("grid.json.rejected-1").read_bytes() == damage(whole)


@damaged
def test_unfinished_work_that_is_not_whole_is_set_aside(
    results: Path, damage: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    before, store = grid_records(results), Store(results)
    (checkpoint,), (shard, *_) = results.rglob("checkpoint.pt"), sorted(results.rglob("certify/*/000*.parquet"))
    state = store.state_path(checkpoint.parent.name, 1)
    state.parent.mkdir()
    partial = shard.with_name(f"{shard.stem}.partial.parquet")
    for whole, unfinished in ((checkpoint, state), (shard, partial)):
        unfinished.write_bytes(damage(whole.read_bytes()))
        whole.unlink()
    text = _status(results, capsys)
    for path in (state, partial):
        assert f"damaged  {path}\n" in text
    assert _launch(results) == 0
    said = capsys.readouterr().err
    for path in (state, partial):
        assert f"damaged  {path}\n" in said
    assert grid_records(results).equals(before)


@damaged
@pytest.mark.parametrize("name", ["launch.json", "grid.json", "train-0/tasks.json"])
def test_a_record_of_a_launch_that_is_not_whole_is_named_and_its_units_are_submitted_again(
    fake: FakeSlurm, results: Path, name: str, damage: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(results)
    assert _launch(results, "cluster=slurm") == 0
    (path,) = results.rglob(f"slurm/*/{name}")
    num_arrays = fake.calls("sbatch")
    path.chmod(0o644)
    path.write_bytes(damage(path.read_bytes()))
    capsys.readouterr()
    text = _status(results, capsys)
    if _is_harmless(path, damage):
        assert "damaged" not in text
        return
    assert f"damaged  {path}\n" in text
    assert _launch(results, "cluster=slurm") == 0
    assert f"damaged  {path}\n" in capsys.readouterr().err
    assert path.with_name(f"{path.name}.rejected-1").exists()
    assert (fake.calls("sbatch") > num_arrays) == name.endswith("tasks.json"), "the others do not say what is queued"


@damaged
def test_a_published_checkpoint_is_copied_again(
    tmp_path: Path, sound: Path, damage: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    results, (given,) = tmp_path / "results", sound.rglob("checkpoint.pt")
    own = ["grid.blocks=[{method: gaussian, sigma: 0.25}]", f"+train.weights={given}", "+train.init=train"]
    assert run_command("launch", launch, tiny(results, *ATTACKED, *own, "train.epochs=1")) == 0
    (copy,), (checkpoint,) = results.glob("checkpoints/*"), results.rglob("runs/*/checkpoint.pt")
    whole = copy.read_bytes()
    copy.write_bytes(damage(whole))
    checkpoint.unlink()
    capsys.readouterr()
    assert run_command("launch", launch, tiny(results, *ATTACKED, *own, "train.epochs=1")) == 0
    assert f"damaged  {copy}\n" in capsys.readouterr().err
    assert copy.read_bytes() == whole


def test_many_damaged_files_are_counted(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = next(results.rglob("certify/*"))
    for number in range(30):
        (folder / f"{number:06d}-{number + 1:06d}-001.parquet").touch()
    text = _status(results, capsys)
    assert text.count("damaged  ") == 20
    assert "and 10 more files" in text
    assert "30 files damaged" in text


def test_a_second_writer_does_not_give_way_to_a_damaged_file(tmp_path: Path) -> None:
    from jobs.atomic import write_atomically

    path = tmp_path / "000000-000001-001.parquet"
    for content in (b"", b"PAR1 and no more"):
        path.write_bytes(content)
        write_atomically(path, lambda temporary: temporary.write_bytes(b"PAR1\0\0\0\0PAR1"), replace=False)
        assert path.read_bytes() == b"PAR1\0\0\0\0PAR1"
    write_atomically(path, lambda temporary: temporary.write_bytes(b"another"), replace=False)
    assert path.read_bytes() == b"PAR1\0\0\0\0PAR1"
    assert sorted(left.name for left in tmp_path.iterdir()) == [
        path.name,
        f"{path.name}.rejected-1",
        f"{path.name}.rejected-2",
    ]
