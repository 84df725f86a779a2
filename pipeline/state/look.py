"""How a grid stands just now: one question to SLURM, its files, and a state for each unit."""

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
    """A grid as it stands."""

    manifest: Manifest
    store: Store
    found: Survey
    states: GridStates


def look(manifest: Manifest, store: Store) -> Status:
    """How a grid stands just now; one squeue call, or none where nothing was ever handed to SLURM."""
    found = survey(manifest, store, _activity(store, manifest.grid))
    times = submission_times(store, manifest.grid) if found.activity.problem else {}
    return Status(manifest=manifest, store=store, found=found, states=grid_states(manifest, found, times))


def is_under_way(activity: Activity) -> bool:
    """Whether anything is running or queued, or may be."""
    return bool(activity.under_way) or activity.problem is not None


def _activity(store: Store, grid: str) -> Activity:
    """The queue comes before the files: what ends in between is then found done, and not lost."""
    here = read_activity(store, grid)
    if here.under_way or not store.has_slurm_launches():
        return here
    try:
        return slurm_activity(store, grid, read_queue(store))
    except SchedulerError as error:
        return Activity(problem=str(error))
