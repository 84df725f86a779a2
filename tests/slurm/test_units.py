"""Units that end in every way, on the real cluster."""

import re
from pathlib import Path

import pyarrow as pa

from tests.grids import finished_files
from tests.slurm.site import HALF, LITTLE, Site

SINGLY = ["cluster.units_per_job=1", "cluster.max_array_size=1"]
"""Every array has one task, and every model is a block of its own."""


def test_an_undisturbed_launch_returns_at_once_and_is_followed_to_its_end(site: Site, undisturbed: pa.Table) -> None:
    text = site.launch(*SINGLY)
    assert "submitted 7 units in 7 arrays" in text
    states = set(site.states().values())
    assert states <= {"queued", "running", "done"}
    assert "nothing to submit: the rest is in progress" in site.launch(*SINGLY)
    watch = site.start(site.status_command("watch=true", "interval_s=1"))
    site.finish()
    said, _ = site.end(watch)
    assert watch.returncode == 0
    first, *_, last = said.split("grid faults: ")[1:]
    assert "images certified: 0 of 16" in first
    assert "images certified: 16 of 16" in last
    site.assert_complete(undisturbed, {})
    assert (site.store.envelope_dir("faults") / "envelope.csv").exists()
    before = finished_files(site.results)
    assert "nothing to do: the grid is complete" in site.launch()
    assert finished_files(site.results) == before


def _hosts(site: Site, pattern: str) -> list[str]:
    """Where the units that match began, the earliest first."""
    logs = sorted(site.results.glob("grids/faults/slurm/*/*/*_0_log.out"), key=lambda path: path.parent.parent.name)
    return [host for log in logs for host in re.findall(rf"begin \S*{pattern}\S* on (\S+)", log.read_text())]


def test_units_that_raise_exit_crash_are_killed_or_take_too_much_memory(
    site: Site, undisturbed: pa.Table, undisturbed_site_results: Path
) -> None:
    """Four shards of a trained model fail, and training fails twice."""
    site.copy_from(undisturbed_site_results, *HALF)
    shards = {"000000": "raise", "000002": "kill", "000004": "memory", "000006": "exit"}
    faults = {f"certify/.*s0.50.*/{start}": fault for start, fault in shards.items()}
    site.order_faults(**{"train/": "kill", **faults})
    singly = ["cluster.units_per_job=1", "cluster.num_shards=4"]
    site.launch(*singly)
    site.await_idle()
    killed = site.unit("train/.*s0.25").failure
    assert killed is not None
    assert (killed.failure_class, "SIGKILL" in killed.message) == ("unknown", True)
    assert killed.host.startswith("127.0.0.")
    assert killed.gpus
    assert killed.job
    assert site.unit("certify/.*s0.25").state == "missing"  # it waits for its model
    failures = [site.unit(pattern).failure for pattern in faults]
    raised, died, memory, left = (failure for failure in failures if failure is not None)
    assert (raised.failure_class, raised.message) == ("bug", "RuntimeError: a fault on order")
    assert "Traceback" in raised.traceback
    assert (died.failure_class, "SIGKILL" in died.message) == ("unknown", True)
    assert (left.failure_class, left.message) == ("unknown", "the process exited with code 3")
    assert memory.failure_class == "host_oom"
    assert "exceeded memory limit" in memory.message
    assert memory.host.startswith("127.0.0.")
    text = site.status()
    assert len(re.findall("^failed   ", text, re.MULTILINE)) == 4  # training and one shard were killed alike
    assert "and 1 more for the same reason" in text
    assert "log: " in text

    # Again, away from the nodes that were at fault; training fails for another reason.
    site.order_faults(**{"train/": "segfault"})
    site.launch(*singly)
    site.await_idle()
    before = finished_files(site.results)
    crashed = site.unit("train/.*s0.25").failure
    assert crashed is not None
    assert (crashed.failure_class, crashed.attempt, "SIGSEGV" in crashed.message) == ("bug", 2, True)
    assert _hosts(site, "s0.25")[0] == killed.host
    avoided = {failure.host for failure in (killed, died, left)}
    assert avoided.isdisjoint(_hosts(site, "s0.25")[1:])
    assert site.unit("certify/.*s0.50.*/000006").state == "done"
    site.finish(*singly)
    site.assert_complete(undisturbed, before)


def test_a_unit_that_is_killed_for_its_memory_ends_done_with_no_hand(
    site: Site, undisturbed: pa.Table, undisturbed_site_results: Path
) -> None:
    before = site.copy_from(undisturbed_site_results, *LITTLE)
    site.order_faults(**{"certify/.*/000000": "memory"})
    text = site.finish("cluster.units_per_job=1", "cluster.num_shards=2", "cluster.certify.mem_gb=[2.5,3]")
    assert "launching again, with more memory or time for 1 unit" in text
    scripts = [path.read_text() for path in site.results.glob("grids/faults/slurm/*/certify-*/*_submission.sh")]
    asked = sorted(found for script in scripts for found in re.findall("--mem=(.*)", script))
    assert asked == ["2560MB", "3072MB"]  # an array of both shards, then one of the shard that was killed
    site.assert_complete(undisturbed, before)
