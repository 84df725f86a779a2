import os
from pathlib import Path

import pytest

from configs.entry import run_command
from pipeline.launch import launch
from tests.grids import ATTACKED, tiny
from tests.pipeline.fake_slurm import FakeSlurm


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """A SLURM that this process finds first."""
    slurm = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{slurm.bin}:{os.environ['PATH']}")
    return slurm


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of one model, certified and attacked. Not to be written to."""
    results = tmp_path_factory.mktemp("sound") / "results"
    assert run_command("launch", launch, tiny(results, *ATTACKED)) == 0
    return results
