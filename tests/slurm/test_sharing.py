"""Several units on the one GPU of a job, on the real cluster."""

import re

import pyarrow as pa

from tests.slurm.site import Site, preempted

SHARED = ["cluster.runs_per_gpu=2", "cluster.units_per_job=1", "cluster.train.mem_gb=3", "cluster.certify.mem_gb=3"]


def test_models_that_share_a_gpu_are_preempted_together_and_go_on(site: Site, undisturbed: pa.Table) -> None:
    """Both models are in one job, and begin before either ends; after preemption both go on from their last epoch."""
    site.order_faults(**{".": "slow"})
    text = site.launch(*SHARED)
    assert "submitted 7 units in 4 arrays" in text  # one task of two models, two of two shards, the aggregation
    keys = [run.train.key for run in site.manifest.runs]
    site.await_(lambda: all(site.store.saved_epochs(key) for key in keys), "a saved epoch of both")
    with preempted():
        site.await_(lambda: {site.unit(f"train/{key}").state for key in keys} == {"queued"}, "the preemption")
        site.order_faults()
    site.finish(*SHARED)
    log = _job_log(site)
    assert len(re.findall(r"INFO begin train/", log)) == 4
    assert len(re.findall(r"WARNING interrupted train/", log)) == 2
    gpus = set(re.findall(r"INFO begin train/\S+ on \S+ gpus \[(\d)\]", log.partition("interrupted")[0]))
    assert len(gpus) == 1
    assert site.log_of("train/*.log").count("resuming after epoch") == 2
    site.assert_complete(undisturbed, {})


def test_one_of_two_that_is_killed_leaves_the_other_alone(site: Site, undisturbed: pa.Table) -> None:
    site.order_faults(**{"train/.*s0.25": "kill"})
    site.launch(*SHARED)
    site.await_idle()
    failure = site.unit("train/.*s0.25").failure
    assert failure is not None
    assert "SIGKILL" in failure.message
    assert site.unit("train/.*s0.50").state == "done"
    site.order_faults()
    site.finish(*SHARED)
    site.assert_complete(undisturbed, {})


def _job_log(site: Site) -> str:
    paths = sorted(site.results.glob("grids/faults/slurm/*/train-0/*_0_log.out"))
    return "\n".join(path.read_text() for path in paths)
