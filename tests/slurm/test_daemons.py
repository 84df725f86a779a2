"""Daemons of the cluster that are killed, and answers that do not come, on the real cluster."""

import os
import shutil
import stat
import time
from pathlib import Path

import pyarrow as pa
import pytest

from configs.entry import run_command
from pipeline.state import commands
from pipeline.status import status
from tests.slurm.site import HALF, LITTLE, Site, kill_daemon, release, start_cluster


def test_kill_9_of_slurmctld_and_of_slurmdbd(site: Site, undisturbed: pa.Table, undisturbed_site_results: Path) -> None:
    before = site.copy_from(undisturbed_site_results, *LITTLE)
    kill_daemon("slurmdbd")  # stays down to the end
    site.launch("+cluster.extra.hold=true")
    queued = {task.job for task in site.queue()}
    launched = time.time()
    saved = Path(os.environ["SLURM_CONF"]).parent.parent / "state" / "job_state"
    site.await_(lambda: saved.exists() and saved.stat().st_mtime > launched, "slurmctld's saved state")
    kill_daemon("slurmctld")
    text = site.status("verbose=true")
    assert "the state of submitted jobs is unknown" in text
    assert sum(line.startswith("unknown  ") for line in text.splitlines()) == 3  # two shards and the aggregation
    assert "nothing was submitted" in site.launch(expect=1)
    start_cluster()
    kill_daemon("slurmdbd")
    assert {task.job for task in site.queue()} == queued
    assert set(site.states().values()) == {"queued", "done"}
    release()
    site.finish()
    site.assert_complete(undisturbed, before)


def test_slurmctld_that_has_lost_its_state_makes_no_failure_of_what_runs(
    site: Site, undisturbed: pa.Table, undisturbed_site_results: Path
) -> None:
    before = site.copy_from(undisturbed_site_results, *HALF)
    site.order_faults(**{".": "slow"})
    site.launch("cluster.units_per_job=1", "cluster.num_shards=1")
    units = ("train/.*s0.25", "certify/.*s0.50")
    site.await_(lambda: {site.unit(pattern).state for pattern in units} == {"running"}, "both units")
    site.await_(lambda: all(site.log_of(f"{pattern}*/**/*.log") for pattern in ("train", "certify")), "their logs")
    kill_daemon("slurmctld")
    for path in (Path(os.environ["SLURM_CONF"]).parent.parent / "state").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    start_cluster()
    assert site.queue() == []
    assert {site.unit(pattern).state for pattern in units} <= {"running", "done"}
    assert site.failures() == {}
    # slurmd ends the jobs that slurmctld does not know; a launch does again what they did not finish.
    site.await_(lambda: set(site.states().values()) <= {"done", "missing", "failed"}, "the end of their signs of life")
    site.order_faults()
    site.finish()
    site.assert_complete(undisturbed, before)


def test_kill_9_of_a_slurmd_makes_two_writers_in_training_and_in_certification(
    site: Site, undisturbed: pa.Table, undisturbed_site_results: Path
) -> None:
    before = site.copy_from(undisturbed_site_results, *HALF)
    lost = {"train/.*s0.25": "two copies", "certify/.*s0.50.*/000000": "two copies"}
    site.order_faults(**lost)
    site.launch("cluster.units_per_job=1", "cluster.num_shards=1")
    units = [site.unit(pattern) for pattern in lost]
    logs = [site.store.log_path("faults", item.unit.name) for item in units]
    site.await_(lambda: all(log.exists() for log in logs), "the first copies")
    tasks = site.look().found.activity.tasks
    nodes = {tasks[item.unit.name].node for item in units}
    for node in nodes:
        kill_daemon(f"slurmd-{node.rpartition('.')[2]}")
    site.await_(lambda: len(list(site.folder.glob("faults.json.second*"))) == 2, "the second copies")
    assert {site.unit(pattern).state for pattern in lost} <= {"running", "done"}
    site.await_(lambda: all(log.read_text().count("INFO end") == 2 for log in logs), "the end of both copies")
    start_cluster()
    site.finish()
    assert all(log.read_text().count("INFO begin") == 2 for log in logs)
    site.assert_complete(undisturbed, before)


def test_a_squeue_that_fails_hangs_or_talks_nonsense(
    site: Site,
    undisturbed: pa.Table,
    undisturbed_site_results: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = site.copy_from(undisturbed_site_results, *HALF)
    site.launch("cluster.num_shards=1")
    squeue = site.folder / "bin" / "squeue"
    squeue.parent.mkdir()
    num_arrays = len(list(site.results.glob("grids/faults/slurm/*/*-*")))
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{squeue.parent}:{os.environ['PATH']}")
        for shell, message in (
            ("echo slurm_load_jobs error >&2; exit 1", "squeue failed with exit code 1: slurm_load_jobs error"),
            ("exec sleep 60", "squeue did not answer within 1 s"),
            ("head -c 300 /dev/urandom", "squeue printed a line that is not a job"),
        ):
            squeue.write_text(f"#!/bin/sh\n{shell}\n")
            squeue.chmod(squeue.stat().st_mode | stat.S_IXUSR)
            patch.setattr(commands, "TIMEOUT_S", 1.0 if "sleep" in shell else 60.0)
            assert run_command("status", status, ["grid=faults", f"results={site.results}"]) == 0
            assert message in capsys.readouterr().out
            # What was done before is known to be; of the rest nothing is, but for what has ended meanwhile.
            assert set(site.states().values()) <= {"done", "unknown"}
            assert site.unit("train/.*s0.50").state == "done"
        assert "nothing was submitted" in site.launch(expect=1)
    assert len(list(site.results.glob("grids/faults/slurm/*/*-*"))) == num_arrays
    site.await_idle()  # the jobs did not mind
    site.assert_complete(undisturbed, before)
