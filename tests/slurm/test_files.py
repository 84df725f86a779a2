"""Results that are damaged or have no room, on the real cluster."""

import contextlib
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

from tests.grids import finished_files
from tests.slurm.site import Site


def test_a_torn_shard_and_one_of_something_else(
    site: Site, undisturbed: pa.Table, undisturbed_site_results: Path
) -> None:
    complete = site.copy_from(undisturbed_site_results, "grids/*/records.parquet")
    runs = site.manifest.runs
    torn, foreign = (site.store.shard_path(run.place, site.store.finished_shards(run.place)[0]) for run in runs)
    other = site.store.shard_path(runs[0].place, site.store.finished_shards(runs[0].place)[1])
    torn.write_bytes(torn.read_bytes()[:-200])
    shutil.copy(other, foreign)
    text = site.launch("wait=true", expect=1)
    assert torn.name in text  # the launch looked at its end
    failure = site.failures()["aggregate"]
    assert failure.failure_class == "data"
    assert "records of another run" in failure.message
    before = {path: key for path, key in complete.items() if path not in (str(torn), str(foreign))}
    site.finish()
    site.assert_complete(undisturbed, before)


@pytest.fixture
def small_disk(site: Site) -> Path:
    """A results folder on a file system of three megabytes: room for a copy of the code, and little else."""
    site.results.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", site.results], check=False)
    if mounted.returncode:
        pytest.skip("no file system may be mounted here")
    return site.results


def test_a_full_disk(site: Site, small_disk: Path, undisturbed: pa.Table) -> None:
    try:
        filler = small_disk / "filler"
        site.launch("cluster.num_shards=1")
        with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        site.await_idle()
        # No end could be written, so the sign of life of a moment ago counts for a while.
        site.await_(lambda: not {"running", "queued"} & set(site.states().values()), "the end of signs of life")
        before = finished_files(site.results)
        assert "done" not in {state for name, state in site.states().items() if name.startswith("certify")}
        site.status("verbose=true")  # looks without writing
        assert "cannot write to" in site.launch(expect=2)
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=50m", small_disk], check=True)
        site.finish("retry=all", "cluster.num_shards=1")
        site.assert_complete(undisturbed, before)
    finally:
        subprocess.run(["umount", "--lazy", small_disk], check=True)
