"""CIFAR-10's way from its archive into memory, with a small archive of the same form."""

import functools
import hashlib
import pickle
import shutil
import socket
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from jobs import prepare
from jobs.datasets import cifar10
from jobs.errors import ConfigError, DataError
from jobs.files.store import Store

FOLDER = "cifar-10-batches-py"


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a server of this machine that hands out tmp_path / source."""
    handler = functools.partial(_Quiet, directory=str(tmp_path / "source"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


@pytest.fixture
def archive(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A served archive of ten images for each file, which torchvision is told to expect."""
    source, random = tmp_path / "source" / FOLDER, np.random.default_rng(0)
    source.mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        data = random.integers(0, 256, size=(10, 3072), dtype=np.uint8)
        (source / name).write_bytes(pickle.dumps({"data": data, "labels": list(range(10))}))
    (source / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {label}" for label in range(10)]}))
    path = tmp_path / "source" / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(source, FOLDER)
    monkeypatch.setattr(CIFAR10, "url", f"{server}/{path.name}")
    monkeypatch.setattr(CIFAR10, "tgz_md5", _md5(path))
    for listing in ("train_list", "test_list"):
        names = [name for name, _ in getattr(CIFAR10, listing)]
        monkeypatch.setattr(CIFAR10, listing, [[name, _md5(source / name)] for name in names])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": _md5(source / "batches.meta")})
    return path


def test_prepared_once_by_however_many_at_a_time(archive: Path, tmp_path: Path) -> None:
    folder, store = tmp_path / "data", Store(tmp_path / "results")
    data: dict[str, str | None] = {"cifar10": str(folder)}
    assert not prepare.is_prepared("cifar10", data, store)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: prepare.prepare("cifar10", data, store), range(4)))
    assert prepare.is_prepared("cifar10", data, store)
    archive.unlink()  # nobody asks for it again
    prepare.prepare("cifar10", data, store)
    train, test = cifar10.open_split("train", folder), cifar10.open_split("test", folder)
    assert train.levels.shape == (50, 3, 32, 32)
    assert train.labels.tolist() == 5 * list(range(10))
    raw = pickle.loads((folder / FOLDER / "test_batch").read_bytes())["data"]
    assert np.array_equal(test.levels.reshape(10, -1), raw)


def test_a_wrong_checksum_is_an_error(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CIFAR10, "tgz_md5", "0" * 32)
    with pytest.raises(DataError, match="cannot be downloaded or is damaged"):
        prepare.prepare("cifar10", {"cifar10": str(tmp_path / "data")}, Store(tmp_path / "results"))


def test_damage_after_preparation_is_an_error_of_the_worker(archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    prepare.prepare("cifar10", {"cifar10": str(folder)}, Store(tmp_path / "results"))
    (folder / FOLDER / "data_batch_3").write_bytes(b"")
    with pytest.raises(DataError, match="missing or damaged"):
        cifar10.open_split("train", folder)


@pytest.mark.parametrize("damage", ["truncated", "lost"])
def test_damage_is_found_by_the_launch_for_a_stat_and_mended(archive: Path, tmp_path: Path, damage: str) -> None:
    folder, store = tmp_path / "data", Store(tmp_path / "results")
    data: dict[str, str | None] = {"cifar10": str(folder)}
    prepare.prepare("cifar10", data, store)
    path = folder / FOLDER / "data_batch_3"
    sound = path.read_bytes()
    path.unlink() if damage == "lost" else path.write_bytes(sound[:100])
    assert not prepare.is_prepared("cifar10", data, store)
    prepare.prepare("cifar10", data, store)
    assert path.read_bytes() == sound
    assert prepare.is_prepared("cifar10", data, store)


@pytest.mark.parametrize("name", [FOLDER, "batches of mine"])
def test_the_unpacked_folder_itself_can_be_named(archive: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    shutil.copytree(tmp_path / "source" / FOLDER, folder)
    archive.unlink()
    prepare.prepare("cifar10", {"cifar10": str(folder)}, Store(tmp_path / "results"))
    assert len(cifar10.open_split("train", folder).labels) == 50


def test_no_network_says_what_to_do(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive.unlink()
    assert prepare.main(["cifar10", str(tmp_path / "data"), "--results", str(tmp_path / "results")]) == 2
    assert "put cifar-10-python.tar.gz into" in capsys.readouterr().err


def test_a_server_that_does_not_answer_is_given_up_soon(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar10, "_PATIENCE_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/archive"
        monkeypatch.setattr(CIFAR10, "url", url)
        assert prepare.main(["cifar10", str(tmp_path / "data"), "--results", str(tmp_path / "results")]) == 2
    note, error = capsys.readouterr().err.splitlines()
    assert note == f"note: downloading CIFAR-10 (170 MB) from {url} to {tmp_path / 'data'}"
    assert "put cifar-10-python.tar.gz into" in error
    # With the archive, nobody is asked.
    shutil.copy(archive, tmp_path / "data")
    assert prepare.main(["cifar10", str(tmp_path / "data"), "--results", str(tmp_path / "results")]) == 0


@pytest.mark.parametrize("below", ["", "/deeper"])
def test_a_file_in_the_place_of_a_folder_is_an_error(
    tmp_path: Path, below: str, capsys: pytest.CaptureFixture[str]
) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("mine")
    assert prepare.main(["cifar10", f"{blocker}{below}", "--results", str(tmp_path / "results")]) == 2
    assert f"data.cifar10: {blocker} is not a folder" in capsys.readouterr().err
    assert prepare.main(["cifar10", str(tmp_path / "data"), "--results", f"{blocker}{below}"]) == 2
    assert f"--results: cannot write to {blocker}{below}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_unknown_dataset_names_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match="unknown dataset 'cifar11' \\(did you mean 'cifar10'"):
        prepare.prepare("cifar11", {}, Store(Path("unused")))
