"""Files of unfinished shards that nobody needs any more."""

from __future__ import annotations

from jobs.files.store import Store
from jobs.specs.runs import ShardedRun


def remove_served_partials(run: ShardedRun, store: Store) -> None:
    """Remove the unfinished files of a run all of whose images are in finished ones by now."""
    place = (run.train.key, run.key)
    finished = {index for shard in store.finished_shards(*place, run.stage) for index in shard}
    for partial in store.partial_shards(*place, run.stage):
        if finished.issuperset(partial):
            store.partial_path(*place, partial, run.stage).unlink(missing_ok=True)
