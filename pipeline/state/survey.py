"""The state of a grid: its files, the queue, and what failed. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jobs.files.failures import Failure
from jobs.files.store import Store
from jobs.specs.runs import Manifest
from pipeline.state.activity import Activity, slurm_activity
from pipeline.state.files import Observation, observe, pending_units, read_history
from pipeline.state.postmortem import find_deaths
from pipeline.state.queue import QueuedTask


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The state of a grid."""

    activity: Activity  # what is in progress
    observed: Observation  # what is done
    history: Mapping[str, Failure]  # the last recorded failure of each unit that is not done and failed, by its name
    deaths: Sequence[Failure] = ()  # failures of units that ended without a record


def survey(manifest: Manifest, store: Store, activity: Activity) -> Survey:
    """Look at the files of a grid.

    What is in progress must have been looked up *before*: a unit that ends in between is then found to be done, and not
    taken for lost.
    """
    observed = observe(manifest, store)
    is_pending = pending_units(manifest, observed)
    history, deaths = read_history(manifest, observed, store, is_pending), list[Failure]()
    if activity.problem is None and not (observed.aggregated and observed.is_complete(manifest)):
        deaths, alive = find_deaths(
            manifest,
            store,
            is_pending=lambda name: name not in activity.in_progress and is_pending(name),
            recorded=history,
        )
        activity = replace(activity, running=activity.running | alive)
    return Survey(activity=activity, observed=observed, history=history, deaths=deaths)


def survey_slurm(manifest: Manifest, store: Store, queue: Sequence[QueuedTask]) -> Survey:
    """``survey`` with what SLURM has in its queue."""
    return survey(manifest, store, slurm_activity(store, manifest.grid, queue))
