"""Pages and notebooks whose code is run by the tests."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of the code blocks of a Markdown page; those without a language show output."""
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


def commands_in(block: str) -> list[str]:
    """The commands of a console block."""
    return [line.removeprefix("$ ") for line in block.splitlines()]


def code_cells(notebook: Path) -> Iterator[str]:
    """The code of a notebook, which must have no outputs."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            yield "".join(cell["source"])


def run_commands(commands: Sequence[str], folder: Path) -> None:
    """Run commands in a shell, with ``smoothadv`` and this Python on the path; each must end with 0."""
    (folder / "bin").mkdir(exist_ok=True)
    command = folder / "bin" / "smoothadv"
    # In the place of the installed command: it must not need the package's folder for the current one.
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m configs.command "$@"\n')
    command.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{command.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
    }
    for line in commands:
        done = subprocess.run(
            line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
