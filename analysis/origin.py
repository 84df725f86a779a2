"""Where a grid's records come from, according to their metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping

from analysis.models import CertifiedGrid
from jobs.aggregate import FINGERPRINT_KEY
from jobs.files import records
from jobs.files.store import Store

_PER_RUN = ("git_commit", "packages", "device")


def provenance_of(store: Store, grid: CertifiedGrid) -> dict[str, str]:
    """The metadata of the records, as names and values to show.

    Args:
        store: The results folder.
        grid: Loaded from it.

    Raises:
        RecordError: The file of records cannot be read.
    """
    path = store.records_path(grid.name)
    facts = {"grid": grid.name, "results": str(store.root)}
    if not path.exists():
        return {**facts, "records": "read from the shards, because the grid is not aggregated yet"}
    metadata = records.read_metadata(path)
    facts |= {"records": path.name, "source": metadata.get("source", "unknown")}
    if FINGERPRINT_KEY in metadata:
        facts["grid fingerprint"] = metadata[FINGERPRINT_KEY]
    runs: Mapping[str, Mapping[str, str]] = json.loads(metadata.get("runs", "{}"))
    for name in _PER_RUN:
        values = sorted({run.get(name, "unknown") for run in runs.values()})
        if values:
            facts[name] = "; ".join(values)
    if runs:
        facts["checkpoints"] = f"{len({run.get('checkpoint_sha256') for run in runs.values()})} different"
    return facts
