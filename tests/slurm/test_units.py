"""Units that fail in every way, on the real cluster."""

from __future__ import annotations

import pyarrow as pa

from tests.grids import finished_files, grid_records
from tests.slurm.site import Site

SINGLY = ["cluster.units_per_job=1", "cluster.max_array_size=1"]
"""Every array has one task, and every model is a block of its own."""


def test_an_undisturbed_launch_returns_at_once_and_completes(site: Site, undisturbed: pa.Table) -> None:
    text = site.launch(*SINGLY)
    assert "submitted 7 units in 7 arrays" in text
    states = set(site.states().values())
    assert states <= {"queued", "running", "done"}
    assert "nothing to submit: the rest is under way" in site.launch(*SINGLY)
    site.finish()
    assert grid_records(site.results, "faults").equals(undisturbed)
    assert (site.store.envelope_dir("faults") / "envelope.csv").exists()
    before = finished_files(site.results)
    assert "nothing to do: the grid is complete" in site.launch()
    assert finished_files(site.results) == before


def test_units_that_raise_exit_crash_are_killed_or_take_too_much_memory(site: Site, undisturbed: pa.Table) -> None:
    site.order_faults(**{"train/.*s0.25": "kill", "train/.*s0.50": "segfault"})
    site.launch()
    site.await_idle()
    killed, crashed = (site.failures()[f"train/{run.train.key}"] for run in site.manifest.runs)
    assert (killed.failure_class, crashed.failure_class) == ("unknown", "bug")
    assert "SIGKILL" in killed.message
    assert "SIGSEGV" in crashed.message
    assert all(item.host.startswith("127.0.0.") and item.gpus and item.job for item in (killed, crashed))
    assert {item.state for item in site.look().states.units if item.unit.stage == "certify"} == {"missing"}
    site.order_faults(
        **{
            "certify/.*s0.25.*/000000": "raise",
            "certify/.*s0.25.*/000004": "kill",
            "certify/.*s0.50.*/000000": "memory",
            "certify/.*s0.50.*/000004": "exit",
        }
    )
    site.launch()
    site.await_idle()
    before = finished_files(site.results)
    shards = [(sigma, start) for sigma in ("s0.25", "s0.50") for start in ("000000", "000004")]
    failures = [site.unit(f"^certify/.*{sigma}.*/{start}-").failure for sigma, start in shards]
    raised, killed, memory, left = (failure for failure in failures if failure is not None)
    assert (raised.failure_class, raised.message) == ("bug", "RuntimeError: a fault on order")
    assert "Traceback" in raised.traceback
    assert (killed.failure_class, "SIGKILL" in killed.message) == ("unknown", True)
    assert (left.failure_class, left.message) == ("unknown", "the process exited with code 3")
    assert memory.failure_class == "host_oom"
    assert "exceeded memory limit" in memory.message
    assert memory.host.startswith("127.0.0.")
    text = site.status()
    assert text.count("failed   certify/") == 4
    assert "log: " in text
    site.finish()
    assert before.items() <= finished_files(site.results).items()
    assert grid_records(site.results, "faults").equals(undisturbed)
