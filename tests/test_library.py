"""docs/library.md and examples/library.ipynb do what they say: every code block and cell is run."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from jobs.files.store import Store
from pipeline.launch import launch
from tests.grids import compose_tiny
from tests.pages import ROOT, blocks, code_cells, commands_in, run_commands


@pytest.mark.slow
def test_every_block_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert launch(compose_tiny(Path("results"), "cluster=debug", "grid.name=digits")) == 0
    names: dict[str, Any] = {}
    languages = []
    for language, text in blocks(ROOT / "docs" / "library.md"):
        languages.append(language)
        if language == "python":
            exec(text, names)
        else:
            run_commands(commands_in(text), tmp_path)
    assert languages == ["python", "python", "console", "python", "console"]
    assert len(names["classes"]) == 4
    (answer,) = json.loads(Path("answer.json").read_text())
    assert (answer["file"], answer["n"]) == ("photos/3.png", 10_000)
    imported = pd.read_csv(Store(Path("other")).envelope_dir("digits") / "envelope.csv")
    assert names["grid"].envelope["accuracy"].tolist() == imported["accuracy"].tolist()


def test_every_cell_of_the_notebook_runs() -> None:
    names: dict[str, Any] = {}
    with torch.random.fork_rng():
        for code in code_cells(ROOT / "examples" / "library.ipynb"):
            exec(code, names)
    assert len(names["records"]) == 50
    assert names["curve"](0.1) > 0.7
