"""docs/extending.md does what it says: its files are written down, and its commands are run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.files.store import Store

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "extending.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"^# (\S+\.(?:py|yaml))$", re.MULTILINE)


def write_files(folder: Path) -> list[str]:
    """Write every file of the page; the commands, in order."""
    commands = []
    for language, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if language == "console":
            commands += [line.removeprefix("$ ") for line in text.splitlines()]
        else:
            name = NAMED.search(text)
            assert name is not None, text
            path = folder / name[1]
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return commands


@pytest.mark.slow
def test_every_line_of_the_page_runs(tmp_path: Path) -> None:
    commands = write_files(tmp_path)
    assert len(commands) == 8
    # In the place of the installed command: it must not need the package's folder for the current one.
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "smoothadv"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m configs.command "$@"\n')
    command.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
    }
    (tmp_path / "jobs").mkdir()  # a folder of the user's that is called like one of our packages
    (tmp_path / "jobs" / "__init__.py").touch()
    for line in commands:
        done = subprocess.run(
            line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    store = Store(tmp_path / "results")
    assert store.records_path("mine").exists()
    assert (store.envelope_dir("mine") / "envelope.csv").exists()
    shutil.rmtree(tmp_path / "mylab")
