"""A published grid: what is in it, and that it comes back bit for bit or not at all."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import torch

from analysis.envelope import envelope
from analysis.import_records import import_records
from analysis.publish.__main__ import publish
from configs.entry import run_command
from jobs.errors import RecordError
from jobs.files.store import Store
from jobs.networks import checkpoint
from jobs.networks.classifier import Classifier
from pipeline.launch import launch
from pipeline.verify import verify
from tests.test_earlier_results import COMMAND_LINE

GAUSSIAN = "digits-gaussian-s0.25-21847f15"
TABLES = ("envelope.csv", "envelope.md", "envelope.tex", "models.csv", "p_lower.csv")


def run(name: str, *arguments: str, code: int = 0) -> None:
    commands = {"publish": publish, "import_records": import_records, "envelope": envelope, "verify": verify}
    assert run_command(name, commands[name], list(arguments)) == code


@pytest.fixture
def published(earlier: Path, tmp_path: Path) -> Path:
    run("publish", "grid=old", f"results={earlier}", f"output={tmp_path / 'published'}")
    return tmp_path / "published"


def tables(results: Path, output: Path) -> dict[str, bytes]:
    run("envelope", "grid=old", f"results={results}", f"output={output}")
    return {name: (output / name).read_bytes() for name in TABLES}


def test_imported_tables_are_the_same_bit_for_bit(
    earlier: Path, published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    run("import_records", f"source={published}", f"results={other}")
    assert f"grid=old results={other}" in capsys.readouterr().out
    assert tables(other, tmp_path / "new") == tables(earlier, tmp_path / "old") == tables(published, tmp_path / "pub")
    run("verify", "grid=old", f"results={other}")
    ours, theirs = (checkpoint.load(Store(root).checkpoint_path(GAUSSIAN)) for root in (earlier, other))
    assert {**ours, "state_dict": None} == {**theirs, "state_dict": None}
    assert all(torch.equal(tensor, theirs["state_dict"][name]) for name, tensor in ours["state_dict"].items())
    capsys.readouterr()
    assert run_command("launch", launch, [*COMMAND_LINE, f"results={other}", "cluster=debug"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    run("import_records", f"source={published}", f"results={other}")  # again: everything is there


def test_a_flipped_byte_in_any_file_is_named(published: Path, tmp_path: Path) -> None:
    files = sorted(path for path in published.rglob("*") if path.is_file())
    assert len(files) == 23
    asked = {"source": str(published), "results": str(tmp_path / "other")}
    for path in files:
        whole = path.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(RecordError, match=f"^{re.escape(str(path))}: damaged"):
                import_records(asked)
        path.write_bytes(whole)
    files[0].unlink()
    with pytest.raises(RecordError, match=f"^{re.escape(str(files[0]))}: missing"):
        import_records(asked)
    assert not (tmp_path / "other").exists()


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="the tool of GNU coreutils is not installed")
def test_the_checksums_are_in_the_form_of_sha256sum(published: Path) -> None:
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(command, cwd=published, check=True, capture_output=True).stdout == b""
    (published / "README.md").write_text("other")
    done = subprocess.run(command, cwd=published, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "README.md: FAILED\n")


def test_cards_hold_the_certified_table_and_code_that_runs(
    earlier: Path, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = (published / "README.md").read_text()
    markdown = tables(earlier, tmp_path / "tables")["envelope.md"].decode()
    for table in re.findall(r"(?:^\|.*\n)+", markdown, flags=re.MULTILINE):
        assert table in card
    monkeypatch.chdir(published / "runs" / GAUSSIAN)
    card = Path("README.md").read_text()
    assert "| 0.25         | 200 | 0.001   | 90.0" in card
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    network = names["network"]
    assert isinstance(network, Classifier)
    assert names["smoothed"].sigma == 0.25
    weights = safetensors.numpy.load_file("model.safetensors")  # without torch
    assert {name: tensor.tolist() for name, tensor in weights.items()} == {
        name: tensor.tolist() for name, tensor in network.state_dict().items()
    }


def test_what_cannot_be_published_leaves_nothing(
    earlier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out" / "published"
    asked = ["grid=old", f"results={earlier}", f"output={output}"]
    store = Store(earlier)
    run("publish", *asked[:2], code=2)
    assert "output is required" in capsys.readouterr().err
    run("publish", "grid=new", *asked[1:], code=2)
    assert "unknown grid 'new'" in capsys.readouterr().err
    weights = store.checkpoint_path(GAUSSIAN)
    content = checkpoint.load(weights)
    next(iter(content["state_dict"].values())).add_(1)
    whole = weights.read_bytes()
    checkpoint.save(weights, content)
    run("publish", *asked, code=1)
    assert "the weights of grid old could not be exported" in capsys.readouterr().err
    weights.write_bytes(whole)
    damaged = sorted((earlier / "runs" / GAUSSIAN / "certify").rglob("*.parquet"))[0]
    data = damaged.read_bytes()
    damaged.write_bytes(data[:500] + bytes(500) + data[1000:])
    run("publish", *asked, code=1)
    assert str(damaged) in capsys.readouterr().err
    damaged.unlink()
    run("publish", *asked, code=1)
    assert "grid old is incomplete" in capsys.readouterr().err
    damaged.write_bytes(data)
    assert not output.exists()
    assert not list(output.parent.glob(".*"))
    interrupted = output.with_name(".published.partial")
    interrupted.mkdir(parents=True)
    (interrupted / "weights").touch()
    run("publish", *asked)
    assert [path.name for path in output.parent.iterdir()] == ["published"]
    assert not (output / "weights").exists()
    run("publish", *asked, code=2)
    assert f"output: {output} exists" in capsys.readouterr().err


def test_what_is_there_already_is_never_replaced(
    earlier: Path, published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    run("import_records", f"source={published}", f"results={other}")
    shard = sorted((other / "runs" / GAUSSIAN / "certify").rglob("*.parquet"))[0]
    pq.write_table(pq.read_table(shard).slice(1), shard)
    before = {path: path.stat().st_mtime_ns for path in other.rglob("*")}
    run("import_records", f"source={published}", f"results={other}", code=2)
    assert f"{shard}: exists with different content" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in other.rglob("*")} == before
    shutil.copytree(earlier, tmp_path / "trained", ignore=shutil.ignore_patterns("certify", "attack", "grids"))
    store = Store(tmp_path / "trained")
    content = checkpoint.load(store.checkpoint_path(GAUSSIAN))
    checkpoint.save(store.checkpoint_path(GAUSSIAN), {**content, "weights_sha256": "0" * 64})
    run("import_records", f"source={published}", f"results={store.root}", code=1)
    assert "could not be imported" in capsys.readouterr().err
    assert not store.grid_names()
    run("import_records", f"source={tmp_path}", code=2)
    assert f"{tmp_path / 'SHA256SUMS'} is missing" in capsys.readouterr().err
    run("import_records", code=2)
    assert "source is required" in capsys.readouterr().err
