"""The state of a grid now: one question to SLURM, its files, and the state of each unit."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.files.store import Store
from jobs.specs.runs import Manifest
from pipeline.state.activity import Activity, read_activity, read_queue, slurm_activity
from pipeline.state.commands import SchedulerError
from pipeline.state.postmortem import submission_times
from pipeline.state.survey import Survey, survey
from pipeline.state.units import GridStates, grid_states


@dataclass(frozen=True, kw_only=True)
class Status:
    """The state of a grid."""

    manifest: Manifest
    store: Store
    found: Survey
    states: GridStates


def look(manifest: Manifest, store: Store) -> Status:
    """The state of a grid now; one squeue call, or none if nothing was ever submitted to SLURM."""
    found = survey(manifest, store, _activity(store, manifest.grid))
    times = submission_times(store, manifest.grid) if found.activity.problem else {}
    return Status(manifest=manifest, store=store, found=found, states=grid_states(manifest, found, times))


def is_in_progress(activity: Activity) -> bool:
    """Whether anything is running or queued, or may be."""
    return bool(activity.in_progress) or activity.problem is not None


def _activity(store: Store, grid: str) -> Activity:
    """The queue is read before the files: a unit that ends in between is then found done, not lost."""
    here = read_activity(store, grid)
    if here.in_progress or not store.has_slurm_launches():
        return here
    try:
        return slurm_activity(store, grid, read_queue(store))
    except SchedulerError as error:
        return Activity(problem=str(error))
