import logging
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.launch import launch
from tests.grids import compose_tiny, grid_records

EARLIER = Path(__file__).parent / "fixtures" / "results-0"


@pytest.fixture(autouse=True)
def _keep_log_handlers() -> Iterator[None]:
    """Units that run in this process send the log elsewhere; the next test wants it back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def _whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text is not cut into lines, whatever the shell or the test runner says of a terminal."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def undisturbed_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the tiny grid, launched once and never interfered with. Not to be written to."""
    results = tmp_path_factory.mktemp("undisturbed") / "results"
    assert launch(compose_tiny(results, "cluster=debug")) == 0
    return results


@pytest.fixture(scope="session")
def undisturbed_records(undisturbed_results: Path) -> pa.Table:
    return grid_records(undisturbed_results)


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The results of an earlier version, unpacked: the grid "old" of two models, certified and attacked."""
    with tarfile.open(EARLIER / "results.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "results"
