"""What a user meets first on a new cluster, on the real one."""

import os
import subprocess
import sys

import pytest

from tests.slurm.site import Site

HELD = "+cluster.extra.hold=true"


def _cancel(site: Site, **environment: str) -> str:
    command = [sys.executable, "-m", "pipeline.cancel", "grid=faults", f"results={site.results}"]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("cluster.python=/no/such/python", "/no/such/python: not found"),
        ("cluster.setup=['module load cuda/99']", "the setup ended with exit code 127"),
    ],
)
def test_a_job_that_ends_before_python_starts_says_why_and_is_counted(site: Site, option: str, said: str) -> None:
    for attempt in (1, 2):
        text = site.launch(option, "wait=true", expect=1)
        assert f"(setup, attempt {attempt}, node 127.0.0." in text
        assert said in text
        assert "_0_log.out" in text
    assert "setup" in {failure.failure_class for failure in site.failures().values()}
    assert "retry=setup" in site.launch(option, expect=1)
    assert site.queue() == []


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("+cluster.extra.mem-per-cpu=500M", "set cluster.train.mem_gb=null"),
        ("+cluster.extra.foo=bar", "unrecognized option '--foo=bar'"),
        ("cluster.train.mem_gb=9999", "cluster.train"),
    ],
)
def test_a_refusal_is_told_and_leaves_nothing_behind(site: Site, option: str, said: str) -> None:
    text = site.launch(option, expect=1)
    assert "SLURM refuses: train: " in text
    assert said in text
    assert site.queue() == []
    assert list(site.store.launches_dir("faults").iterdir()) == []


def test_tasks_that_ask_for_too_much_are_replaced_when_less_is_asked(site: Site) -> None:
    too_much = "cluster.train.cpus=64"
    site.launch(too_much)
    site.await_(lambda: "stuck: SLURM will never run" in site.status(), "SLURM's reason")
    text = site.launch(too_much, expect=1)
    assert "(PartitionConfig); change the resources of cluster.train" in text
    num_tasks = len(site.queue())
    text = site.launch("cluster.train.cpus=1", HELD)
    assert f"SLURM will never run {num_tasks} tasks" in text
    assert "they were cancelled, and their units are submitted again" in text
    assert set(site.states().values()) == {"queued"}
    assert "JobHeldUser (held: scontrol release JOB)" in site.status()


def test_the_user_s_defaults_for_single_commands_change_no_answer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.launch(HELD)
    num_tasks = len(site.queue())
    for name, value in {"SQUEUE_STATES": "RUNNING", "SQUEUE_PARTITION": "high", "SQUEUE_NAMES": "x"}.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert "nothing" in site.launch(HELD)
    assert len(site.queue()) == num_tasks
    assert f"cancelled {num_tasks} jobs" in _cancel(site, SCANCEL_STATE="RUNNING")
    assert site.queue() == []


def test_a_cancellation_followed_at_once_by_a_launch_submits_everything(site: Site) -> None:
    site.order_faults(**{".": "slower"})
    first = site.launch()
    site.await_(lambda: any(task.is_running for task in site.queue()), "the first job")
    _cancel(site)
    (submitted,) = [line for line in site.launch(HELD).splitlines() if line.startswith("submitted ")]
    assert submitted.split(" units")[0] in first
