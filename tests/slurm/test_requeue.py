"""Preemption and time limits: units go on where they were, on the real cluster.

One model is in training while the other is certified, so that each fault befalls both.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.networks import checkpoint
from pipeline.launch import launch
from tests.grids import grid_records
from tests.slurm.site import HALF, Site, compose, preempted, slurm

SINGLY = ["cluster.units_per_job=1", "cluster.num_shards=1"]
TWO = ["grid.blocks=[{method: gaussian, sigma: 0.25, num_processes: 2}, {method: gaussian, sigma: 0.5}]"]
"""The same grid, its first model trained by two processes."""


def test_preemption(site: Site, undisturbed: pa.Table, undisturbed_site_results: Path) -> None:
    before = site.copy_from(undisturbed_site_results, *HALF)
    site.order_faults(**{".": "slow"})
    site.launch(*SINGLY)
    _await_progress(site)
    with preempted():
        epoch = _await_requeue(site)
        site.order_faults()
    _finish(site, epoch, undisturbed, before)


def test_time_limits(site: Site, undisturbed: pa.Table, undisturbed_site_results: Path) -> None:
    for minutes in (1, 3, 9):  # a busy machine needs a longer limit, or a task begins too late to do anything
        before = site.copy_from(undisturbed_site_results, *HALF)
        site.order_faults(**{".": f"slower {minutes}"})  # longer than the limit
        # SLURM looks every half minute: with one minute, its warning comes 16 to 46 seconds after the begin.
        limits = [f"cluster.{stage}.time_min={minutes}" for stage in ("train", "certify")]
        site.launch(*SINGLY, *limits, "cluster.signal_delay_s=14")
        try:
            epoch = _await_requeue(site)
        except NoProgressError:
            assert minutes < 9, site.logs()
            subprocess.run(["scancel", f"--user={os.getuid()}"], check=True)
            site.await_idle()
            shutil.rmtree(site.results)
        else:
            break
    site.order_faults()
    _finish(site, epoch, undisturbed, before)


@pytest.fixture
def no_grace(cluster: None) -> Iterator[None]:
    """The preempted have no time to leave, as is SLURM's default."""
    slurm("scontrol", "update", "partition=main", "GraceTime=0")
    yield
    slurm("scontrol", "update", "partition=main", "GraceTime=10")


@pytest.fixture
def local_results(undisturbed_site_results: Path, tmp_path: Path) -> Path:
    """Results in which two processes of this machine have trained the first model."""
    results = Path(shutil.copytree(undisturbed_site_results, tmp_path / "local" / "results"))
    assert launch(compose(results, "cluster=debug", *TWO)) == 0
    return results


def _weights(site: Site) -> dict[str, pa.Tensor]:
    key = site.manifest.runs[0].train.key
    weights: dict[str, pa.Tensor] = checkpoint.load(site.store.checkpoint_path(key))["state_dict"]
    return weights


def test_two_tasks_of_one_training_are_preempted_without_grace_and_fail(
    site: Site, local_results: Path, no_grace: None
) -> None:
    before = site.copy_from(local_results, *HALF)
    # On a busy machine two tasks take long to begin: certification must still run when they have.
    site.order_faults(**{"train/": "slow", "certify/": "slower"})
    site.launch(*SINGLY, *TWO)
    key = site.manifest.runs[0].train.key
    (job,) = [task.job for task in site.queue() if task.job_name.startswith("train-")]
    shown = slurm("scontrol", "show", "job", job)
    assert "NumTasks=2 CPUs/Task=1" in shown
    assert "TresPerNode=gres:gpu:2" in shown  # one each
    _await_progress(site)
    with preempted():
        epoch = _await_requeue(site)
        # Started again, the second task dies before the first has met it.
        site.order_faults(**{"train/": "kill second"})
    site.await_idle()
    failure = site.failures()[f"train/{key}"]
    assert (failure.attempt, failure.failure_class) == (1, "unknown")
    assert "the process was killed (SIGKILL)" in failure.message
    assert site.unit("certify/.*s0.25").state == "missing"
    site.order_faults()
    _finish(site, epoch, grid_records(local_results, "faults"), before, *TWO)
    log = site.log_of(f"train/{key}.log")
    assert [log.count(f"rank {rank} INFO resuming after epoch {epoch}") for rank in range(2)] == [1, 1]
    assert not list(site.store.failures_dir(key).iterdir())  # it has succeeded since
    ours, theirs = _weights(site), _weights(Site(local_results.parent))
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def _await_progress(site: Site) -> None:
    """Wait until training and certification have both saved something."""
    key = site.manifest.runs[0].train.key
    site.await_(lambda: len(site.store.saved_epochs(key)) == 2, "the third epoch")
    site.await_(lambda: "did 1 of 8 images" in site.log_of("certify/*s0.50*/**/*.log"), "the first image")
    running = site.status("verbose=true")
    assert re.search(r"running  train/\S+s0.25\S+  epoch \d+ of 12, job \d+_\d on 127.0.0.\d", running)
    assert re.search(r"running  certify/\S+s0.50\S+  image [1-8] of 8, job", running)


class NoProgressError(AssertionError):
    """A task ran into its time limit before it had saved anything."""


def _await_requeue(site: Site) -> int:
    """Wait until training was queued again, after certification has begun; the epoch from which it goes on."""
    key = site.manifest.runs[0].train.key

    def resumed() -> list[str]:
        return re.findall(r"resuming after epoch (\d+)", site.log_of(f"train/{key}.log"))

    def is_queued_again() -> bool:
        if late := [failure for failure in site.failures().values() if failure.failure_class == "timeout"]:
            raise NoProgressError(late)
        # Without preemption it may be queued for a moment only.
        is_queued = site.unit(f"train/{key}").state == "queued" and site.store.saved_epochs(key)
        return bool((is_queued or resumed()) and "did 1 of 8 images" in site.log_of("certify/*s0.50*/**/*.log"))

    site.await_(is_queued_again, "the requeue")
    return int(([*map(str, site.store.saved_epochs(key)), *resumed()])[-1])


def _finish(site: Site, epoch: int, undisturbed: pa.Table, before: dict[str, tuple[int, int]], *more: str) -> None:
    site.finish("cluster.num_shards=1", *more)
    key = site.manifest.runs[0].train.key
    assert f"resuming after epoch {epoch}" in site.log_of(f"train/{key}.log")
    assert re.search("resuming with [1-8] of 8 images done", site.log_of("certify/*s0.50*/**/*.log"))
    assert "failed" not in site.log_of("**/*.log")
    site.assert_complete(undisturbed, before)
