"""Questions that a process of its own answers, which leaves nothing behind however it ends."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.errors import ConfigError
from jobs.plugins.isolated import ask
from tests.sessions import PATIENCE_S

DESCRIBE = "jobs.preflight.describe"
QUESTION = [["model", "mylab:build", {}]]
ASK = f"""
from configs import ctrl_c
from jobs.plugins.isolated import ask
ctrl_c.listen()
ask("{DESCRIBE}", {{"mylab.py": PATH.encode()}}, {QUESTION})
"""
STUBBORN = """
import os, time
open({path!r}, "w").write(str(os.getpid()))
while True:
    try:
        time.sleep(0.1)
    except BaseException:
        pass
"""


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))


def test_a_plug_in_is_described_and_nothing_is_left(tmp_path: Path) -> None:
    answer = ask(DESCRIBE, {"mylab.py": b"def build(info, width=3): ..."}, QUESTION)
    assert answer == [{"name": "mylab:build", "version": 1, "options": {"width": 3}}]
    assert not [*(tmp_path / "tmp").iterdir()]


def test_an_interrupt_in_a_plug_in_interrupts_whoever_asks(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ask(DESCRIBE, {"mylab.py": b"raise KeyboardInterrupt"}, QUESTION)
    assert not [*(tmp_path / "tmp").iterdir()]


def test_a_plug_in_that_ends_the_process_is_named() -> None:
    with pytest.raises(ConfigError, match="ended with exit code 3"):
        ask(DESCRIBE, {"mylab.py": b"import os\nos._exit(3)"}, QUESTION)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_process_ends_with_the_one_that_asks(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "pid"
    code = ASK.replace("PATH", repr(STUBBORN.format(path=str(path))))
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=_listen) as asking:
        deadline = time.monotonic() + PATIENCE_S
        while not (path.exists() and path.read_text()):
            assert asking.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        asking.send_signal(number)
        _, errors = asking.communicate(timeout=PATIENCE_S)
    if number == signal.SIGINT:
        assert (asking.returncode, errors) == (130, "interrupted; run the same command again to resume\n")
    while _is_running(int(path.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not [*(tmp_path / "tmp").iterdir()]


def _listen() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs, and all that they start, ignore Ctrl-C


def _is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended may wait for a parent that asks how."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
