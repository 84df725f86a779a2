"""The tests of this folder run on the cluster of tests/slurm/cluster, and on no other."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.launch import launch
from tests.grids import grid_records
from tests.slurm.site import CLUSTER, Site, compose, start_cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """SLURM_CONF of the test cluster of this worker; skips where it is not up unless the environment says it is."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    number = worker.removeprefix("gw") or os.environ.get("SLURM_TEST_CLUSTER", "0")
    if worker and int(number) >= int(os.environ.get("SLURM_TEST_CLUSTERS", "0")):
        pytest.skip("each worker needs a cluster of its own: make test-slurm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_TEST_CLUSTER", number)
        env = Path(subprocess.run([CLUSTER, "env"], capture_output=True, text=True, check=True).stdout.strip())
        conf = env.parent / "etc" / "slurm.conf"
        if not conf.exists():
            pytest.skip("the SLURM test cluster is not up: make slurm-up")
        patch.setenv("SLURM_CONF", str(conf))
        try:
            subprocess.run(["sinfo"], capture_output=True, timeout=60, check=True)
        except (OSError, subprocess.SubprocessError):
            give_up = pytest.fail if "SLURM_TEST_DIR" in os.environ else pytest.skip
            give_up("the SLURM test cluster does not answer: make slurm-up")
        yield


@pytest.fixture
def site(cluster: None, tmp_path: Path) -> Iterator[Site]:
    """A results folder on a cluster that is idle before and after."""
    start_cluster()
    own = Site(tmp_path)
    own.await_idle()
    yield own
    start_cluster()
    subprocess.run(["scancel", f"--user={os.getuid()}"], check=True)


@pytest.fixture(scope="session")
def undisturbed_site_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the grid of ``Site``, never interfered with. Not to be written to."""
    results = tmp_path_factory.mktemp("undisturbed-site") / "results"
    assert launch(compose(results, "cluster=debug")) == 0
    return results


@pytest.fixture(scope="session")
def undisturbed(undisturbed_site_results: Path) -> pa.Table:
    """Its records."""
    return grid_records(undisturbed_site_results, "faults")
