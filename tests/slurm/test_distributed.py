"""One model that two tasks of a job train together, on the real cluster."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest

from jobs import checkpoint
from pipeline.launch import launch
from tests.grids import grid_records
from tests.slurm.site import Site, compose, preempt, slurm

TWO = ["grid.blocks=[{method: gaussian, sigma: 0.25, num_processes: 2}]", "cluster.num_shards=1"]


@pytest.fixture(scope="module")
def local_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with processes that were started on this machine."""
    results = tmp_path_factory.mktemp("local") / "results"
    assert launch(compose(results, "cluster=local", *TWO)) == 0
    return results


def _weights(site: Site) -> dict[str, pa.Tensor]:
    (run,) = site.manifest.runs
    weights: dict[str, pa.Tensor] = checkpoint.load(site.store.checkpoint_path(run.train.key))["state_dict"]
    return weights


def test_two_tasks_train_a_model_are_preempted_fail_and_go_on_to_the_same_bits(site: Site, local_results: Path) -> None:
    site.order_faults(**{".": "slow"})
    assert "submitted 3 units in 3 arrays" in site.launch(*TWO)
    (run,), (train,) = site.manifest.runs, [task for task in site.queue() if ".train-" in task.job_name]
    shown = slurm("scontrol", "show", "job", train.job)
    assert "NumTasks=2 CPUs/Task=1" in shown
    assert "TresPerNode=gres:gpu:2" in shown  # one each
    site.await_(lambda: len(site.store.saved_epochs(run.train.key)) == 2, "the third epoch")
    assert re.search(r"running  train/\S+  epoch \d+ of 12, job \d+_0 on 127.0.0.\d", site.status("verbose=true"))
    preempt()
    site.await_(lambda: site.unit("train/").state == "queued", "the preemption")
    epoch = site.store.saved_epochs(run.train.key)[-1]

    # Started again, the second one dies before the first has met it.
    site.order_faults(**{"train/": "kill second"})
    site.await_idle()
    failure = site.failures()[f"train/{run.train.key}"]
    assert (failure.attempt, failure.failure_class) == (1, "unknown")
    assert "the process was killed (SIGKILL)" in failure.message
    assert site.unit("certify/").state == "missing"

    site.order_faults()
    site.finish(*TWO)
    text = site.log_of(f"train/{run.train.key}.log")
    assert [text.count(f"rank {rank} INFO going on after epoch {epoch}") for rank in range(2)] == [1, 1]
    assert len(list(site.store.failures_dir(run.train.key).iterdir())) == 1  # the first task's
    ours, theirs = _weights(site), _weights(Site(local_results.parent))
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    site.assert_complete(grid_records(local_results, "faults"), {})
