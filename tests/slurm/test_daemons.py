"""Daemons of the cluster that are killed, on the real cluster."""

from __future__ import annotations

import time

import pyarrow as pa

from tests.grids import finished_files, grid_records
from tests.slurm.site import Site, kill_daemon, slurm, start_cluster


def test_kill_9_of_slurmctld_and_of_slurmdbd(site: Site, undisturbed: pa.Table) -> None:
    kill_daemon("slurmdbd")  # stays down to the end
    site.launch("+cluster.extra.hold=true")
    queued = {task.job for task in site.queue()}
    time.sleep(6)  # it saves its state every five seconds, and what it has not saved it forgets
    kill_daemon("slurmctld")
    assert set(site.states().values()) == {"unknown"}
    text = site.status()
    assert "it is unknown how it stands" in text
    assert "nothing was submitted" in site.launch(expect=1)
    start_cluster()
    kill_daemon("slurmdbd")
    assert {task.job for task in site.queue()} == queued
    assert set(site.states().values()) == {"queued"}
    slurm("scontrol", "release", ",".join(sorted({task.array_id for task in site.queue()})))
    site.finish()
    assert grid_records(site.results, "faults").equals(undisturbed)


def test_kill_9_of_a_slurmd_makes_two_writers_of_one_unit(site: Site, undisturbed: pa.Table) -> None:
    site.order_faults(**{"train/.*s0.25": "two copies"})
    site.launch()
    lost = "train/.*s0.25"
    site.await_(
        lambda: site.unit(lost).state == "running" and (site.results / "grids/faults/logs/train").exists(),
        "the first copy",
    )
    activity = site.look().found.activity
    node = activity.tasks[site.unit(lost).unit.name].node
    site.await_(lambda: list(site.results.glob("grids/faults/logs/train/*s0.25*.log")), "the unit's begin")
    kill_daemon(f"slurmd-{node.rpartition('.')[2]}")
    site.await_(lambda: (site.folder / "faults.json.second").exists(), "the second copy")
    assert site.unit(lost).state in ("running", "done")
    log = next(site.results.glob("grids/faults/logs/train/*s0.25*.log"))
    site.await_(lambda: log.read_text().count("INFO end train/") == 2, "the end of both copies")
    before = finished_files(site.store.run_dir(site.manifest.runs[0].train.key))
    site.await_idle()
    start_cluster()
    site.finish()
    assert before.items() <= finished_files(site.results).items()
    assert grid_records(site.results, "faults").equals(undisturbed)
