"""The state of a grid: its files, the queue, and what failed. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from jobs.files.store import Store
from jobs.specs.indices import parse_shard_stem
from jobs.specs.runs import Manifest
from pipeline.state.activity import Activity, slurm_activity
from pipeline.state.files import Observation, observe
from pipeline.state.history import History, read_history
from pipeline.state.postmortem import Death, find_deaths
from pipeline.state.queue import QueuedTask


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The state of a grid.

    Attributes:
        activity: What is in progress.
        observed: What is done.
        history: Recorded failures of what is not done.
        deaths: Units that ended without a record.
    """

    activity: Activity
    observed: Observation
    history: History
    deaths: tuple[Death, ...] = ()


def survey(manifest: Manifest, store: Store, activity: Activity) -> Survey:
    """Look at the files of a grid.

    Args:
        manifest: The grid.
        store: Its results.
        activity: What is in progress. It must have been looked up *before* this call: a unit that ends
            in between is then found to be done, and not taken for lost.
    """
    observed = observe(manifest, store)
    history = read_history(manifest, observed, store)
    deaths: Sequence[Death] = ()
    if activity.problem is None and not (observed.aggregated and observed.is_complete(manifest)):
        is_pending = pending_units(manifest, observed, activity)
        deaths = find_deaths(manifest, store, is_pending=is_pending, recorded=history.last)
        alive = {death.unit for death in deaths if death.may_live}
        deaths = [death for death in deaths if not death.may_live]
        activity = replace(activity, running=activity.running | alive)
    return Survey(activity=activity, observed=observed, history=history, deaths=tuple(deaths))


def survey_slurm(manifest: Manifest, store: Store, queue: Sequence[QueuedTask]) -> Survey:
    """``survey`` with what SLURM has in its queue."""
    return survey(manifest, store, slurm_activity(store, manifest.grid, queue))


def pending_units(manifest: Manifest, observed: Observation, activity: Activity) -> Callable[[str], bool]:
    """Says of a unit's name whether the unit is neither done nor in progress. Units of other grids are not."""
    missing: dict[str, set[int]] = {}
    for run in manifest.runs:
        missing.setdefault(run.name, set()).update(observed.missing(run))
    untrained = manifest.models.keys() - observed.trained

    def is_pending(name: str) -> bool:
        if name in activity.in_progress:
            return False
        stage, _, rest = name.partition("/")
        if stage == "train":
            return rest in untrained
        if stage in ("certify", "attack"):
            run_name, _, stem = name.rpartition("/")
            return not missing.get(run_name, set()).isdisjoint(parse_shard_stem(stem))
        return not observed.aggregated

    return is_pending
