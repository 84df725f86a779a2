"""SLURM's commands at the process boundary: scripts on PATH that keep a queue in a folder and count their calls."""

import re
import stat
from pathlib import Path

_SCRIPTS = {
    "srun": "exit 0",
    "sbatch": """
        for script; do :; done
        if [ -e sbatch.$(calls sbatch) ]; then . ./sbatch.$(calls sbatch); fi
        id=$(cat next); echo $((id + 1)) > next
        cp "$script" queue/$id
        env > environment
        echo "Submitted batch job $id"
    """,
    "squeue": """
        if [ -e squeue ]; then . ./squeue; fi
        for job in $(ls queue); do
            name=$(sed -n "s/^#SBATCH --job-name=//p" queue/$job)
            last=$(sed -n "s/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p" queue/$job)
            seq 0 "$last" | sed "s/.*/$job|&|PD|$name||$(id -u)||N\\/A|$(cat reason)/"
        done
    """,
    "scancel": 'for id; do rm -f "queue/${id%_*}"; done',
    "scontrol": 'echo "MaxArraySize            = $(cat max_array_size)"',
}


class FakeSlurm:
    """A queue in which nothing ever starts.

    Attributes:
        folder: Its state. A file ``squeue`` (or ``sbatch.N``) holds shell lines that the command
            (the N-th sbatch) begins with.
        bin: To be put on PATH.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        (folder / "queue").mkdir(parents=True)
        self.bin.mkdir()
        for name, text in (("next", "1"), ("reason", "Priority"), ("max_array_size", "1001")):
            (folder / name).write_text(text)
        for command, body in _SCRIPTS.items():
            path = self.bin / command
            head = f'cd "{folder}" || exit 9\necho "$*" >> calls.{command}\ncalls() {{ wc -l < calls.$1; }}\n'
            path.write_text(f"#!/bin/sh\n{head}{body}\n")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def answer(self, command: str, shell: str) -> None:
        """Have a command begin with shell lines."""
        (self.folder / command).write_text(shell + "\n")

    def recover(self, command: str) -> None:
        """Have it work again."""
        (self.folder / command).unlink()

    def calls(self, command: str) -> int:
        """How often a command was called."""
        path = self.folder / f"calls.{command}"
        return len(path.read_text().splitlines()) if path.exists() else 0

    @property
    def scripts(self) -> list[str]:
        """What is in the queue, in the order of submission."""
        paths = sorted((self.folder / "queue").iterdir(), key=lambda path: int(path.name))
        return [path.read_text() for path in paths]

    def option(self, name: str) -> list[str | None]:
        """The value of an sbatch option in each script; None where it has none."""
        found = [re.search(rf"^#SBATCH --{name}=(.*)$", script, re.MULTILINE) for script in self.scripts]
        return [match[1].strip("'") if match else None for match in found]

    def clear(self) -> None:
        """Empty the queue: everything has ended, somehow."""
        for path in (self.folder / "queue").iterdir():
            path.unlink()
