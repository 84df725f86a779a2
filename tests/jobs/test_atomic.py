import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.atomic import STALE_AFTER_S, read_json, remove_stale_temporaries, set_aside, write_atomically, write_json
from jobs.errors import DiskFullError


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def half(temporary: Path) -> None:
        temporary.write_text("ha")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, half, Path.stat)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_write_that_reads_back_wrong_never_counts(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def refuse(temporary: Path) -> None:
        raise ValueError(temporary.read_text())

    with pytest.raises(ValueError, match="content"):
        write_atomically(path, lambda temporary: temporary.write_text("content"), refuse)
    assert os.listdir(tmp_path) == []


def test_kill_during_the_write_leaves_no_file_that_counts(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from jobs.atomic import write_atomically\n"
        "def write(path): path.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
        f"write_atomically(Path({str(tmp_path / 'file')!r}), write, Path.stat)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert not (tmp_path / "file").exists()
    (leftover,) = tmp_path.iterdir()
    remove_stale_temporaries(tmp_path)
    assert leftover.exists()  # young: another writer may be at it
    os.utime(leftover, (0, time.time() - 2 * STALE_AFTER_S))
    remove_stale_temporaries(tmp_path)
    assert not leftover.exists()


def test_what_is_set_aside_is_kept_under_a_new_name(tmp_path: Path) -> None:
    for content in ("first", "second"):
        (tmp_path / "file").write_text(content)
        set_aside(tmp_path / "file")
    assert (tmp_path / "file.rejected-1").read_text() == "first"
    assert (tmp_path / "file.rejected-2").read_text() == "second"


def test_json_round_trip(tmp_path: Path) -> None:
    write_json(tmp_path / "folder" / "file.json", {"b": [1, 2.5], "a": None})
    assert read_json(tmp_path / "folder" / "file.json") == {"a": None, "b": [1, 2.5]}


def test_content_is_on_the_disk_and_checked_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watch_fsync(descriptor: int) -> None:
        events.append("folder on disk" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file on disk")
        fsync(descriptor)

    def watch_replace(source: Path, target: Path) -> None:
        events.append("named")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watch_fsync)
    monkeypatch.setattr(os, "replace", watch_replace)
    write_atomically(tmp_path / "file", lambda path: path.write_text("x"), lambda path: events.append("checked"))
    assert events == ["file on disk", "checked", "named", "folder on disk"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "quota")])
def test_a_full_disk_is_named_with_its_folder(tmp_path: Path, error: OSError) -> None:
    def full(temporary: Path) -> None:
        temporary.write_text("ha")
        raise error

    with pytest.raises(DiskFullError, match=rf"is full; file was not written; free space in.*{tmp_path.name}"):
        write_atomically(tmp_path / "file", full, Path.stat)
    assert os.listdir(tmp_path) == []


def test_a_writer_that_hides_the_full_disk_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.save raises a RuntimeError of its own. The same error on a disk with room is what it says."""

    def write(temporary: Path) -> None:
        raise RuntimeError("unexpected pos 64 vs 0")

    with pytest.raises(RuntimeError, match="unexpected pos"):
        write_atomically(tmp_path / "file", write, Path.stat)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
    with pytest.raises(DiskFullError):
        write_atomically(tmp_path / "file", write, Path.stat)
