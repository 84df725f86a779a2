"""Preemption and time limits: units go on where they were, on the real cluster.

One model is in training while the other is certified, so that each fault befalls both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from tests.slurm.site import HALF, Site, preempt, slurm

TIME_LIMIT = [f"cluster.{stage}.time_min=1" for stage in ("train", "certify")]


@pytest.fixture
def no_grace(cluster: None) -> Iterator[None]:
    """The preempted have no time to leave, as is SLURM's default."""
    slurm("scontrol", "update", "partition=main", "GraceTime=0")
    yield
    slurm("scontrol", "update", "partition=main", "GraceTime=10")


def test_preemption(site: Site, undisturbed: pa.Table, undisturbed_site_results: Path) -> None:
    _begin_preempt_and_finish(site, undisturbed, undisturbed_site_results)


def test_preemption_without_grace(
    site: Site, undisturbed: pa.Table, undisturbed_site_results: Path, no_grace: None
) -> None:
    _begin_preempt_and_finish(site, undisturbed, undisturbed_site_results)


def test_time_limits(site: Site, undisturbed: pa.Table, undisturbed_site_results: Path) -> None:
    before = site.copy_from(undisturbed_site_results, *HALF)
    site.order_faults(**{"train": "slow", "certify": "slower"})
    site.launch("cluster.units_per_job=1", "cluster.signal_delay_s=38", *TIME_LIMIT)
    _await_progress(site)
    _requeued_and_finished(site, undisturbed, before)


def _begin_preempt_and_finish(site: Site, undisturbed: pa.Table, undisturbed_site_results: Path) -> None:
    before = site.copy_from(undisturbed_site_results, *HALF)
    site.order_faults(**{".": "slow"})
    site.launch("cluster.units_per_job=1")
    _await_progress(site)
    preempt()
    _requeued_and_finished(site, undisturbed, before)


def _await_progress(site: Site) -> None:
    key = site.manifest.runs[0].train.key
    site.await_(lambda: len(site.store.saved_epochs(key)) == 2, "the third epoch")
    site.await_(lambda: "did 1 of 4 images" in site.log_of("certify/*s0.50*/**/*.log"), "the first image")
    running = site.status("verbose=true")
    assert re.search(r"running  train/\S+s0.25\S+  epoch \d+ of 12, job \d+_\d on 127.0.0.\d", running)
    assert re.search(r"running  certify/\S+s0.50\S+  image [1-4] of 4, job", running)


def _requeued_and_finished(site: Site, undisturbed: pa.Table, before: dict[str, tuple[int, int]]) -> None:
    key = site.manifest.runs[0].train.key
    site.await_(lambda: "running" not in site.states().values(), "the requeue")
    assert site.unit(f"train/{key}").state == "queued"
    epoch = site.store.saved_epochs(key)[-1]
    site.order_faults()  # the rest is to be quick
    site.finish()
    assert f"going on after epoch {epoch}" in site.log_of(f"train/{key}.log")
    assert re.search("going on with [1-4] of 4 images done before", site.log_of("certify/*s0.50*/**/*.log"))
    assert "failed" not in site.log_of("**/*.log")
    site.assert_complete(undisturbed, before)
