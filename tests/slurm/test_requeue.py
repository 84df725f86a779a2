"""Preemption and time limits: units go on where they were, on the real cluster."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa

from jobs.store import Store
from pipeline.launch import launch
from tests.grids import grid_records
from tests.slurm.site import Site, compose, slurm


def _preempt(site: Site) -> None:
    """A job of the higher partition that wants everything for a moment."""
    slurm("sbatch", "--partition=high", "--nodes=4", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")


def _log(site: Site, pattern: str) -> str:
    return "\n".join(path.read_text() for path in sorted(site.results.glob(f"grids/faults/logs/{pattern}")))


def test_preemption_of_training_and_of_certification(site: Site, undisturbed: pa.Table) -> None:
    site.order_faults(**{".": "slow"})
    site.launch("cluster.units_per_job=1")
    keys = [run.train.key for run in site.manifest.runs]
    site.await_(lambda: all(len(site.store.saved_epochs(key)) == 2 for key in keys), "the third epoch")
    running = site.status("verbose=true")
    assert re.search(r"running  train/\S+  epoch \d+ of 12, job \d+_\d on 127.0.0.\d", running)
    _preempt(site)
    site.await_(lambda: {site.unit(f"train/{key}").state for key in keys} == {"queued"}, "the preemption")
    epochs = {key: site.store.saved_epochs(key)[-1] for key in keys}
    site.order_faults()  # the rest is to be quick
    site.await_(
        lambda: all(f"going on after epoch {epochs[key]}" in _log(site, f"train/{key}.log") for key in keys),
        "the resumption",
    )
    site.finish()
    assert "failed" not in _log(site, "**/*.log")
    assert grid_records(site.results, "faults").equals(undisturbed)


def test_preemption_of_certification(site: Site, undisturbed: pa.Table, undisturbed_site_results: Path) -> None:
    site.copy_from(undisturbed_site_results, without="runs/*/certify")
    site.store.records_path("faults").unlink()
    site.order_faults(**{".": "slow"})
    site.launch()
    site.await_(lambda: "did 1 of 4 images" in _log(site, "certify/**/*.log"), "the first image")
    assert re.search(r"running  certify/\S+  image [1-4] of 4, job", site.status("verbose=true"))
    _preempt(site)
    site.await_(lambda: "running" not in site.states().values(), "the preemption")
    site.order_faults()
    site.finish()
    assert re.search("going on with [1-4] of 4 images done before", _log(site, "certify/**/*.log"))
    assert "failed" not in _log(site, "**/*.log")
    assert grid_records(site.results, "faults").equals(undisturbed)


def test_time_limits_of_training_and_of_certification(site: Site, tmp_path: Path) -> None:
    """Both at once, since a limit of SLURM's shortest takes its time: one grid trains, the other certifies."""
    grid = ["grid.blocks=[{method: gaussian, sigma: 0.25}]", "cluster.num_shards=1"]
    images = ["certify.indices.stop=12"]
    other = ["grid.name=certified", "train.seed=1"]
    limit = ["cluster.train.time_min=1", "cluster.certify.time_min=1", "cluster.signal_delay_s=20"]
    expected = tmp_path / "expected"
    for more in ([*grid, *images, "train.epochs=25"], [*grid, *images, *other]):
        assert launch(compose(expected, "cluster=debug", *more)) == 0
    assert launch(compose(site.results, "cluster=debug", *grid, *other, "certify.indices.stop=1")) == 0
    site.order_faults(**{".": "slow"})
    site.launch(*grid, *images, *limit, "train.epochs=25")
    site.launch(*grid, *images, *limit, *other)
    site.await_(lambda: "going on after epoch" in _log(site, "train/*.log"), "training's second start")
    log = Store(site.results).grid_dir("certified") / "logs" / "certify"
    site.await_(lambda: any("going on with" in path.read_text() for path in log.rglob("*.log")), "certification's")
    site.order_faults()
    site.finish(*grid, *images, *limit, "train.epochs=25")
    site.finish(*grid, *images, *limit, *other)
    for name in ("faults", "certified"):
        assert grid_records(site.results, name).equals(grid_records(expected, name))
