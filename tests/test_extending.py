"""docs/extending.md does what it says: its files are written down, and its commands are run."""

import re
import shutil
from pathlib import Path

import pytest

from jobs.files.store import Store
from tests.pages import ROOT, blocks, commands_in, run_commands

PAGE = ROOT / "docs" / "extending.md"
NAMED = re.compile(r"^# (\S+\.(?:py|yaml))$", re.MULTILINE)


def write_files(folder: Path) -> list[str]:
    """Write every file of the page; the commands, in order."""
    commands = []
    for language, text in blocks(PAGE):
        if language == "console":
            commands += commands_in(text)
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
    assert len(commands) == 13
    (tmp_path / "jobs").mkdir()  # a folder of the user's that is called like one of our packages
    (tmp_path / "jobs" / "__init__.py").touch()
    run_commands(commands, tmp_path)
    store = Store(tmp_path / "results")
    assert store.records_path("mine").exists()
    assert (store.envelope_dir("mine") / "envelope.csv").exists()
    shutil.rmtree(tmp_path / "mylab")
