import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import filelock
import pyarrow as pa
import pytest

from analysis.envelope import envelope
from configs.entry import run_command
from jobs.errors import TrainingDivergedError
from jobs.files.manifest import read_manifest
from jobs.files.store import Store
from jobs.training import builtin
from pipeline.launch import launch
from tests.grids import finished_files, grid_records, tiny


def _launch(results: Path, *more: str) -> int:
    return run_command("launch", launch, tiny(results, "cluster=debug", *more))


@pytest.fixture
def results(tmp_path: Path, undisturbed_results: Path) -> Path:
    return Path(shutil.copytree(undisturbed_results, tmp_path / "results"))


def test_a_second_launch_has_nothing_to_do(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = finished_files(results)
    assert _launch(results) == 0
    assert "nothing to do: the grid is complete" in capsys.readouterr().out
    assert finished_files(results) == before


def test_a_dry_run_touches_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _launch(tmp_path / "results", "dry_run=true") == 0
    assert "dry run" in capsys.readouterr().out
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.dataset=imagenet", "model=resnet50"], "data.imagenet: "),
        (["train.dataset=cifar10_images", "model=cifar_resnet20", "data.cifar10_images=nowhere"], "no folder nowhere"),
        (["+train.checkpoint={file}"], "train.checkpoint: {file}: cannot be read"),
        (["results={file}/sub"], "results: cannot write to {file}/sub"),
    ],
)
def test_a_dry_run_checks_what_a_launch_checks(
    tmp_path: Path, overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("no checkpoint")
    given = [override.format(file=file) for override in overrides]
    assert _launch(tmp_path / "results", "dry_run=true", *given) == 2
    assert message.format(file=file) in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("dry_run", ["true", "false"])
def test_a_gpu_that_is_not_there_is_bad_configuration(
    tmp_path: Path, dry_run: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert _launch(tmp_path / "results", "cluster.device=cuda", f"dry_run={dry_run}") == 2
    assert "cluster.device=cuda, but this machine has no usable GPU" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_more_images_re_use_those_that_are_there(results: Path, undisturbed_records: pa.Table) -> None:
    before = finished_files(results)
    assert _launch(results, "certify.indices.stop=30") == 0
    assert before.items() <= finished_files(results).items()
    table = grid_records(results)
    assert len(table) == 90
    assert table.filter(pa.compute.less(table["index"], 21)).equals(undisturbed_records)


def test_every_20th_and_then_all(tmp_path: Path, undisturbed_records: pa.Table) -> None:
    assert _launch(tmp_path, "certify.indices.step=20") == 0
    assert len(grid_records(tmp_path)) == 6
    assert _launch(tmp_path) == 0
    assert grid_records(tmp_path).equals(undisturbed_records)


def test_two_grids_share_runs(results: Path) -> None:
    before = finished_files(results)
    assert _launch(results, "grid.name=other") == 0
    assert finished_files(results) == before
    assert grid_records(results, "other").equals(grid_records(results))


def test_a_changed_grid_is_noted(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _launch(results, "certify.n=100") == 0
    assert "note: grid tiny was launched before with other settings" in capsys.readouterr().out


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.dataset=mnist"],
        ["train.epochs=0"],
        ["certify.alpha=0"],
        ["certify.alpha=1.0"],
        ["certify.n=0"],
        ["certify.n=9"],
        ["cluster.max_workers=0"],
        ["grid.blocks=[{method: gaussian, sigma: 0}]"],
        ["grid.blocks=[{method: magic, sigma: 0.25}]"],
        ["grid.blocks=[{method: gaussian, sigma: []}]"],
        ["grid.blocks=[]"],
        ["grid=nope"],
        ["certify.nn=10"],
        ["dry_run=perhaps"],
        ["retry=foo"],
        ["+certify.train_key=mine"],
        ["+train.checkpoint_sha256=mine"],
        ["attack=digits", "+attack.train_key=mine"],
        ["hydra.run.dir=elsewhere"],
        ["cluster=slurm", "+cluster.extra.job_name=mine"],
        ["cluster=slurm", "+cluster.extra.job-name=mine"],
        ["cluster=slurm", "+cluster.extra.array=0-0"],
        ["cluster=slurm", "+cluster.extra.output=/dev/null"],
        ["cluster=slurm", "+cluster.extra.partition=gpu"],
        [f"grid.name={300 * 'a'}"],
        ["grid.blocks=[{method: gaussian, sigma: 1e300}]"],
        ["grid.blocks=[{method: smoothadv, attack: pgd, sigma: 0.25, epsilon: 0.5, num_steps: 1000000000000}]"],
        ["certify.indices=0"],
        ["attack=paper", "attack.indices=5"],
        ["attack=paper", "attack.indices={1: 2}"],
        ["+train.checkpoint=5"],
        ["+train.checkpoint=[a,b]"],
        ["+train.checkpoint={a: 1}"],
        ["grid.blocks=[{method: gaussian, sigma: 0.25, checkpoint: [5]}]"],
        ["grid.blocks=[{method: gaussian, sigma: 0.25, checkpoint: [[x]]}]"],
    ],
)
def test_bad_input_exits_2_and_writes_nothing(
    tmp_path: Path, overrides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _launch(tmp_path / "results", *overrides) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("retry=foo", "retry: 'foo' is not valid; valid: 'all', 'cuda_oom', "),
        ("+cluster.extra.job_name=mine", "cluster.extra.job_name: set by the launcher; remove it"),
        ("+cluster.extra.cpus_per_task=3", "cluster.extra.cpus_per_task: write cluster.STAGE.cpus instead"),
        ("+certify.train_key=mine", "certify.train_key: set by the launcher; remove it"),
        ("cluster.compile=maybe", "cluster.compile: 'maybe' is not valid; valid: False, True, 'reduce-overhead', "),
        ("cluster.train.mem_gb=-1", "cluster.train.mem_gb: input should be greater than 0 or write a list, got -1"),
        ("cluster.train.mem_gb=[16,-1]", "cluster.train.mem_gb[1]: input should be greater than 0, got -1"),
        ("cluster.after=soon", "cluster.after: 'soon' is not a job id or afterany:ID"),
        ("cluster.kind=pbs", "cluster.kind: 'pbs' is not valid; valid: 'auto', 'local', 'debug' or 'slurm'"),
        ("cluster.kind=local", "cluster.kind=local takes no SLURM options (partition, account, qos, ...); write "),
        ("grid.name=a/b", "grid.name: 'a/b' is not a name: at most 100 letters, digits, "),
        ("grid.blocks=[gaussian]", "grid.blocks[0]: write keys with values, got 'gaussian'"),
        ("model=resnet50", "train.architecture: resnet50 needs images with 3 channels, but those of digits have 1; "),
    ],
)
def test_what_is_wrong_with_an_option_is_said_once(
    tmp_path: Path, override: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _launch(tmp_path, "cluster=slurm", override) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")


def test_a_file_in_the_place_of_a_dataset_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("mine")
    blocks = "grid.blocks=[{method: gaussian, sigma: 0.25, dataset: cifar10, architecture: cifar_resnet20}]"
    assert _launch(tmp_path / "results", blocks, f"data.cifar10={blocker}") == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: data.cifar10: {blocker} is not a folder; choose another path with data.cifar10=PATH"
    ]
    assert os.listdir(tmp_path) == ["file"]


def test_slurm_without_its_options_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _launch(tmp_path, "cluster=local", "cluster.kind=slurm") == 2
    assert capsys.readouterr().err == "error: cluster.kind=slurm needs the SLURM options; write cluster=slurm\n"


def test_a_note_on_every_model_is_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = "grid.blocks=[{method: gaussian, sigma: [0.25, 0.5]}]"
    assert _launch(tmp_path, blocks, "train.batch_size=5000", "dry_run=true") == 0
    assert capsys.readouterr().err.count("each epoch is one step") == 1


def test_all_groups_are_checked_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _launch(tmp_path, "cluster.max_workers=0", "certify.alpha=2", "train.dataset=mnist", "dry_run=3") == 2
    problems = capsys.readouterr().err
    for part in ("error: dry_run: ", "cluster.max_workers", "certify.alpha", "unknown dataset 'mnist'"):
        assert part in problems


def test_the_name_of_an_imported_grid_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Store(tmp_path).import_path("tiny")
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    assert _launch(tmp_path) == 2
    assert "grid tiny was imported from logs" in capsys.readouterr().err
    assert not Store(tmp_path).manifest_path("tiny").exists()


def test_a_results_folder_that_cannot_be_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("mine")
    assert _launch(blocker / "results") == 2
    assert "results: cannot write to" in capsys.readouterr().err
    assert blocker.read_text() == "mine"


def test_bad_input_leaves_finished_results_alone(results: Path) -> None:
    before = finished_files(results)
    assert _launch(results, "certify.n=3") == 2
    assert finished_files(results) == before


def test_a_second_launch_at_the_same_time_is_refused(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(results)
    store.activity_path("tiny").write_text("{}")
    with filelock.FileLock(store.launch_lock_path()):
        assert _launch(results, "grid.name=mine") == 1
    error = capsys.readouterr().err
    assert "another launch is running" in error
    assert f"follow: python -m pipeline.status grid=tiny results={results} watch=true" in error


def test_one_diverging_model_does_not_stop_the_others(
    tmp_path: Path,
    undisturbed_records: pa.Table,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def diverge(*args: object, **kwargs: object) -> None:
        raise TrainingDivergedError("training diverged: the loss of epoch 0 is not finite")

    with monkeypatch.context() as patch:
        patch.setattr(builtin, "smoothadv_pgd", diverge)  # the two SmoothAdv models
        assert _launch(tmp_path) == 1
    error = capsys.readouterr().err
    assert "2 units failed; finished work is kept. Launch again" in error
    assert "7 units skipped because a dependency failed" in error
    gaussian = read_manifest(Store(tmp_path).manifest_path("tiny")).runs[0]
    assert len(Store(tmp_path).finished_shards(gaussian.place)) == 3
    before = finished_files(tmp_path)
    assert _launch(tmp_path) == 0
    assert before.items() <= finished_files(tmp_path).items()
    assert grid_records(tmp_path).equals(undisturbed_records)


def test_a_damaged_shard_fails_once_and_is_made_anew(
    results: Path, undisturbed_records: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(results)
    run = read_manifest(store.manifest_path("tiny")).runs[1]
    path = store.shard_path(run.place, store.finished_shards(run.place)[1])
    path.write_bytes(b"PAR1 something else \0\0\0\0PAR1")
    store.records_path("tiny").unlink()
    assert _launch(results) == 1
    assert path.name in capsys.readouterr().err
    assert _launch(results) == 0
    assert grid_records(results).equals(undisturbed_records)


def test_many_failures_for_one_reason_are_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _launch(tmp_path, "train.learning_rate=1e30") == 1
    error = capsys.readouterr().err
    assert error.count("TrainingDivergedError: training diverged in epoch 0") == 1
    assert "and 2 more for the same reason" in error
    assert "3 units failed; finished work is kept" in error


def test_damage_is_mended_as_often_as_it_comes(results: Path, undisturbed_records: pa.Table) -> None:
    store = Store(results)
    run = read_manifest(store.manifest_path("tiny")).runs[1]
    for _ in range(3):
        shard = store.finished_shards(run.place)[0]
        store.shard_path(run.place, shard).write_bytes(b"PAR1" + bytes(8) + b"PAR1")
        store.records_path("tiny").unlink()
        assert [_launch(results), _launch(results)] == [1, 0]
    assert grid_records(results).equals(undisturbed_records)


@pytest.mark.parametrize("damage", ["overwritten", "of another spec"])
def test_a_damaged_checkpoint_fails_once_and_is_trained_anew(
    results: Path, undisturbed_records: pa.Table, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(results)
    other, run, third = read_manifest(store.manifest_path("tiny")).runs
    shutil.rmtree(store.shards_dir(run.place))
    path = store.checkpoint_path(run.train.key)
    if damage == "overwritten":
        content = path.read_bytes()
        path.write_bytes(content[:500] + bytes(500) + content[1000:])
    else:
        shutil.copy(store.checkpoint_path(other.train.key), path)
    finished = finished_files(store.run_dir(third.train.key))
    assert _launch(results) == 1
    assert "moved to checkpoint.pt.rejected-1: launch again to retrain this model" in capsys.readouterr().err
    assert _launch(results) == 0
    assert grid_records(results).equals(undisturbed_records)
    assert finished_files(store.run_dir(third.train.key)) == finished


def test_records_of_an_older_layout_of_the_grid_are_not_taken_for_current(results: Path) -> None:
    path = Store(results).records_path("tiny")
    before = path.stat().st_mtime_ns
    time.sleep(0.01)
    assert _launch(results, "certify.indices.stop=14") == 0
    assert path.stat().st_mtime_ns > before
    assert len(grid_records(results)) == 42


def test_a_learning_rate_that_diverges_costs_its_own_model_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = "grid.blocks=[{method: gaussian, sigma: 0.25, learning_rate: [0.05, 1e30]}]"
    assert _launch(tmp_path, blocks) == 1
    error = capsys.readouterr().err
    assert "diverged in epoch 0 (counted from 0): loss or logits are not finite; nothing was saved" in error
    assert "1 unit failed; finished work is kept. Launch again" in error
    sound, diverging = read_manifest(Store(tmp_path).manifest_path("tiny")).runs
    assert len(Store(tmp_path).finished_shards(sound.place)) == 3
    assert not Store(tmp_path).is_trained(diverging.train.key)


def test_a_launch_of_a_complete_grid_never_imports_torch(undisturbed_results: Path) -> None:
    program = (
        "import sys; from configs.entry import run_command; from pipeline.launch import launch\n"
        f"code = run_command('launch', launch, {tiny(undisturbed_results)!r})\n"
        "sys.exit(code or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout


def test_weights_ruined_by_the_very_last_step_are_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = "grid.blocks=[{method: gaussian, sigma: 0.25, learning_rate: 1e37}]"
    assert _launch(tmp_path, blocks, "train.epochs=1", "train.batch_size=2000") == 1
    assert "diverged in epoch 0" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["lost", "truncated"])
def test_a_lost_manifest_is_written_again(results: Path, damage: str) -> None:
    path = Store(results).manifest_path("tiny")
    sound = path.read_text()
    if damage == "lost":
        path.unlink()
    else:
        path.write_text(sound[:100])
    assert _launch(results) == 0
    assert path.read_text() == sound


def test_a_grid_certified_at_two_sigmas_keeps_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = "grid.blocks=[{method: gaussian, sigma: 0.25, sigma_cert: [0.25, 0.5]}]"
    assert _launch(tmp_path, blocks, "train.epochs=1") == 0
    assert run_command("envelope", envelope, ["grid=tiny", f"results={tmp_path}"]) == 0
    assert "best of 2 certified models" in " ".join(capsys.readouterr().out.split())
