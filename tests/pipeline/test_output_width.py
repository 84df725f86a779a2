"""No line that a launch and its companions print is wider than the terminal."""

import ast
import shlex
import shutil
from collections import Counter
from pathlib import Path

import pytest

from configs.entry import run_command
from jobs.files.failures import record_death
from jobs.files.manifest import read_manifest
from jobs.files.store import Store
from jobs.specs.units import ShardUnit
from pipeline.cancel import cancel
from pipeline.efficiency import efficiency
from pipeline.launch import launch
from pipeline.status import status
from pipeline.verify import verify
from tests.grids import tiny
from tests.pipeline.fake_slurm import FakeSlurm

COMMANDS = {"launch": launch, "status": status, "cancel": cancel, "verify": verify, "efficiency": efficiency}
ROOT = Path(__file__).parents[2]
DATA = {
    "configs/command.py": 2,  # help, and shell code for completion
    "configs/entry.py": 3,  # help, a configuration, and one short line
    "configs/roots.py": 1,  # it imports nothing of ours
    "jobs/predict.py": 2,  # JSON, and a table
    "jobs/wording.py": 1,
    "pipeline/launch.py": 1,  # a script for sbatch
    "pipeline/status.py": 1,  # clears the screen
}
"""How often a module prints what is not text for people, which goes through ``say``."""


def test_all_text_for_people_goes_the_same_way() -> None:
    found = Counter(
        str(path.relative_to(ROOT))
        for package in ("configs", "jobs", "pipeline")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    )
    assert found == DATA


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "a-folder-with-a-long-name" / "and-another-one-below-it" / "results"


def _said(name: str, results: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str]:
    """The exit code and the text of a command, whose lines are checked."""
    arguments = tiny(results, *more) if name == "launch" else ["grid=tiny", f"results={results}", *more]
    capsys.readouterr()
    code = run_command(name, COMMANDS[name], arguments)
    captured = capsys.readouterr()
    lines = (captured.out + captured.err).splitlines()
    # A word has a line of its own; behind it may stand what says that a command goes on.
    assert not [line for line in lines if len(line) > 80 and " " in line.strip().removesuffix(" \\")]
    return code, captured.out + captured.err


def test_a_grid_on_this_machine(results: Path, undisturbed_results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(undisturbed_results, results)
    store = Store(results)
    manifest = read_manifest(store.manifest_path("tiny"))
    assert _said("launch", results, capsys, "cluster=debug")[0] == 0
    assert "(dry run)" in _said("launch", results, capsys, "cluster=debug", "dry_run=true")[1]
    for name in ("status", "efficiency", "verify"):
        assert _said(name, results, capsys)[0] == 0
    for run in manifest.runs:
        for shard in store.finished_shards(run.place):
            unit = ShardUnit(run=run, indices=shard)
            store.shard_path(run.place, shard).write_bytes(b"")
            for _ in range(2):
                record_death(
                    store, unit, "bug", "ValueError: " + "something went wrong " * 9, store.log_path("tiny", unit.name)
                )
    assert "damaged" in _said("status", results, capsys, "verbose=true")[1]
    assert "9 problems" in _said("verify", results, capsys)[1]
    code, text = _said("launch", results, capsys, "cluster=debug")
    assert (code, "failed twice" in " ".join(text.split())) == (1, True)
    text = _said("launch", results, capsys, "cluster=debug", "certify.n=100", "retry=all")[1]
    assert "before with other settings" in " ".join(text.split())


def test_a_grid_on_a_cluster(fake: FakeSlurm, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(name: str, *more: str) -> str:
        return " ".join(_said(name, results, capsys, *more)[1].replace(" \\\n", " ").split())

    text = said("launch", "cluster=slurm")
    assert f"python -m pipeline.status grid=tiny results={shlex.quote(str(results))} watch=true" in text
    assert "nothing to submit" in said("launch", "cluster=slurm")
    assert "waiting: " in said("status", "verbose=true")
    (fake.folder / "reason").write_text("QOSMaxGRESPerJob")
    assert "stuck: " in said("status")
    assert "SLURM will never run" in said("launch", "cluster=slurm")
    fake.answer(
        "squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1"
    )
    assert "note: squeue failed with exit code 1" in said("status")
    assert "SLURM did not answer" in said("launch", "cluster=slurm")
    assert "is unknown" in said("launch", "cluster=local")
    assert "it is unknown whether anything was cancelled" in said("cancel")
    fake.recover("squeue")
    (fake.folder / "reason").write_text("Priority")
    assert "SLURM has" in said("launch", "cluster=local")
    assert "cancelled" in said("cancel")


@pytest.mark.parametrize(
    "more",
    [
        ["train.dataset=mnist"],
        ["train.epochs=0", "certify.alpha=0", "cluster.device=tpu", "certify.indices.stop=100000"],
        ["gird=digits"],
        ["grid=digist"],
        ["grid.blocks=[]"],
        ["grid.blocks=[{method: gaussian, sgima: 0.25}]"],
        ["train.dataset=imagenet", "model=resnet50"],
        ["+train.checkpoint=/no/such/file/in/a/folder/with/a/rather/long/name/checkpoint.pth.tar"],
        ["cluster=slurm", "cluster.signal_delay_s=100000", "+cluster.extra.time=5"],
        ["--unknown"],
        ["certify.n=[1,2"],
        ["train.sigma=0.5"],
    ],
)
def test_what_is_wrong_with_a_command_line(
    results: Path, more: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text = _said("launch", results, capsys, *more)
    assert code == 2
    assert text.startswith("error: ")
    assert not results.exists()
    assert _said("status", results, capsys)[0] == 2
