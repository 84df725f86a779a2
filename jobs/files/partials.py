"""Files of unfinished shards that are no longer needed."""

from __future__ import annotations

from jobs.files.store import Store
from jobs.specs.runs import Run


def remove_served_partials(run: Run, store: Store) -> None:
    """Remove the unfinished files of a run all of whose images are in finished ones by now."""
    finished = {index for shard in store.finished_shards(run.place) for index in shard}
    for partial in store.partial_shards(run.place):
        if finished.issuperset(partial):
            store.partial_path(run.place, partial).unlink(missing_ok=True)
