from __future__ import annotations

import os
from pathlib import Path

import pytest

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
