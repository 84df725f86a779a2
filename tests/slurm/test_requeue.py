"""Preemption and time limits: units go on where they were, on the real cluster.

One model is in training while the other is certified, so that each fault befalls both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.store import Store
from pipeline.launch import launch
from tests.grids import grid_records
from tests.slurm.site import HALF, Site, compose, preempt, slurm


@pytest.fixture
def grace_s(cluster: None, request: pytest.FixtureRequest) -> Iterator[int]:
    """Seconds that the preempted have to leave: 10, or none at all, which is SLURM's default."""
    slurm("scontrol", "update", "partition=main", f"GraceTime={request.param}")
    yield request.param
    slurm("scontrol", "update", "partition=main", "GraceTime=10")


@pytest.mark.parametrize("grace_s", [10, 0], indirect=True)
def test_preemption_of_training_and_of_certification(
    site: Site, undisturbed: pa.Table, undisturbed_site_results: Path, grace_s: int
) -> None:
    before = site.copy_from(undisturbed_site_results, *HALF)
    site.order_faults(**{".": "slow"})
    site.launch("cluster.units_per_job=1")
    key = site.manifest.runs[0].train.key
    site.await_(lambda: len(site.store.saved_epochs(key)) == 2, "the third epoch")
    site.await_(lambda: "did 1 of 4 images" in site.log_of("certify/*s0.50*/**/*.log"), "the first image")
    running = site.status("verbose=true")
    assert re.search(r"running  train/\S+s0.25\S+  epoch \d+ of 12, job \d+_\d on 127.0.0.\d", running)
    assert re.search(r"running  certify/\S+s0.50\S+  image [1-4] of 4, job", running)
    preempt()
    site.await_(lambda: "running" not in site.states().values(), "the preemption")
    assert site.unit(f"train/{key}").state == "queued"
    epoch = site.store.saved_epochs(key)[-1]
    site.order_faults()  # the rest is to be quick
    site.finish()
    assert f"going on after epoch {epoch}" in site.log_of(f"train/{key}.log")
    assert re.search("going on with [1-4] of 4 images done before", site.log_of("certify/*s0.50*/**/*.log"))
    assert "failed" not in site.log_of("**/*.log")
    site.assert_complete(undisturbed, before)


def test_time_limits_of_training_and_of_certification(site: Site, tmp_path: Path) -> None:
    """Both at once, since a limit of SLURM's shortest takes its time: one grid trains, the other certifies."""
    grid = ["grid.blocks=[{method: gaussian, sigma: 0.25}]", "cluster.num_shards=1"]
    images = ["certify.indices.stop=12"]
    other = ["grid.name=certified", "train.seed=1"]
    limit = ["cluster.train.time_min=1", "cluster.certify.time_min=1", "cluster.signal_delay_s=30"]
    expected = tmp_path / "expected"
    for more in ([*grid, *images, "train.epochs=25"], [*grid, *images, *other]):
        assert launch(compose(expected, "cluster=debug", *more)) == 0
    assert launch(compose(site.results, "cluster=debug", *grid, *other, "certify.indices.stop=1")) == 0
    site.order_faults(**{".": "slow"})
    site.launch(*grid, *images, *limit, "train.epochs=25")
    site.launch(*grid, *images, *limit, *other)
    site.await_(lambda: "going on after epoch" in site.log_of("train/*.log"), "training's second start")
    assert site.unit("train/").state == "running"
    log = Store(site.results).grid_dir("certified") / "logs" / "certify"
    site.await_(lambda: any("going on with" in path.read_text() for path in log.rglob("*.log")), "certification's")
    site.order_faults()
    site.finish(*grid, *images, *limit, "train.epochs=25")
    site.finish(*grid, *images, *limit, *other)
    for name in ("faults", "certified"):
        assert grid_records(site.results, name).equals(grid_records(expected, name))
