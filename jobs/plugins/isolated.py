"""Runs modules that import torch or plug-ins in a separate process, and returns their answers."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.atomic import temporary_folder
from jobs.errors import CheckpointError, ConfigError
from jobs.plugins import loading
from jobs.plugins.files import write_files


def ask(
    module: str, contents: Mapping[str, bytes], question: Sequence[Any], *, limit_s: float | None = 600
) -> list[Any]:
    """The answers of a module to the parts of a question, which are plain values, within ``limit_s`` if it is given.

    The module has ``main(FOLDER)``, which reads FOLDER/question.json and writes FOLDER/answer.json (see ``answer``),
    and finds ``contents``, the plug-ins' files, in FOLDER/plugins.

    Raises:
        ConfigError: The process died, or did not end.
        KeyboardInterrupt: It was interrupted.
    """
    with temporary_folder() as folder:
        # Import our packages, whatever is in the current folder.
        path = str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH")
        write_files(contents, folder / "plugins")
        (folder / "question.json").write_text(json.dumps(list(question)), encoding="utf-8")
        with (folder / "output").open("wb") as output:
            try:
                done = subprocess.run(
                    [sys.executable, "-PB", "-m", __name__, module, str(folder), str(os.getpid())],
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
                    stdout=output,
                    stderr=output,
                    timeout=limit_s,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise ConfigError(f"{module} ran for more than {limit_s} s") from error
        if done.returncode == -signal.SIGINT:
            raise KeyboardInterrupt
        if done.returncode or not (folder / "answer.json").exists():
            tail = (folder / "output").read_bytes()[-500:].decode(errors="replace").strip()
            reason = tail or "it printed nothing; does a plug-in end the process?"
            raise ConfigError(f"{module} ended with exit code {done.returncode} and without a result: {reason}")
        answer: list[Any] = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
        return answer


def answer(folder: Path, to: Callable[[list[Any]], list[Any]]) -> None:
    """In the separate process: answer the question of ``ask``, with its plug-ins available."""
    loading.use(folder / "plugins")
    question = json.loads((folder / "question.json").read_text(encoding="utf-8"))
    (folder / "answer.json").write_text(json.dumps(to(question)), encoding="utf-8")


def answer_problems(folder: Path, act: Callable[..., None]) -> None:
    """Answer the question of ``ask`` with the error messages of ``act``, called with each part."""

    def problem(asked: Sequence[Any]) -> str | None:
        try:
            act(*asked)
        except (CheckpointError, ConfigError, OSError, KeyError) as error:
            return str(error)
        return None

    answer(folder, lambda question: [found for asked in question if (found := problem(asked))])


def _main(module: str, folder: str, parent: str) -> None:
    """The process that answers, which ends with the one that asks, however that does."""
    threading.Thread(target=_end_with, args=(int(parent), folder), daemon=True).start()
    importlib.import_module(module).main(Path(folder))


def _end_with(parent: int, folder: str) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    shutil.rmtree(folder, ignore_errors=True)  # the parent was killed, maybe
    os._exit(1)


if __name__ == "__main__":
    _main(*sys.argv[1:])
