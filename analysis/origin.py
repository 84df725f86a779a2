"""Where a grid's records come from, according to their metadata."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.models import CertifiedGrid, CertifiedModel
from jobs.aggregate import FINGERPRINT_KEY
from jobs.files import records
from jobs.files.code import git_commit
from jobs.files.store import Store
from jobs.specs.keys import canonical_json


def provenance_of(store: Store, grid: CertifiedGrid) -> dict[str, str]:
    """The metadata of a grid's records, as names and values to show. Raises RecordError if they cannot be read."""
    path = store.records_path(grid.name)
    facts = {"grid": grid.name, "results": str(store.root)}
    if not path.exists():
        return {**facts, "records": "read from the shards, because the grid is not aggregated yet"}
    metadata = records.read_metadata(path)
    facts |= {"records": path.name, "source": metadata.get("source", "unknown")}
    if FINGERPRINT_KEY in metadata:
        facts["grid fingerprint"] = metadata[FINGERPRINT_KEY]
    runs: Mapping[str, Mapping[str, str]] = json.loads(metadata.get("runs", "{}"))
    if runs:
        for name in ("git_commit", "packages", "device"):
            facts[name] = "; ".join(sorted({run.get(name, "unknown") for run in runs.values()}))
        facts["checkpoints"] = f"{len({run.get('checkpoint_sha256') for run in runs.values()})} different"
    return facts


def question_of(models: Sequence[CertifiedModel], **options: Any) -> dict[str, Any]:
    """The settings of a table or figure: its models' data, n, alpha and mode (lists if they differ), options, code."""
    known = [model.parameters for model in models]
    facts: dict[str, Any] = {}
    for name in ("dataset", "split", "images", "n0", "n", "alpha", "mode", "stop_rule", "radius_step", "precision"):
        values = sorted({getattr(one, name) for one in known}, key=str)
        facts[name] = values[0] if len(values) == 1 else values
    numbers = sorted({int(model.indices.size) for model in models})
    facts["num_images"] = numbers[0] if len(numbers) == 1 else numbers
    return {**facts, "num_models": len(models), **options, "code_version": git_commit()}


DEFAULTS: Mapping[str, Any] = {
    **{"where": None, "radii": None, "step": None, "alpha": None},
    **{"selection": "same", "seeds": "mean", "confidence": 0.95, "rho": 0.001},
}
"""The options that change the contents of an output, with their default values."""


def variant_name(name: str, options: Mapping[str, Any]) -> str:
    """The name of an output; other options than the defaults add a hash, so that no output is overwritten."""
    changed = {option: value for option, value in options.items() if value != DEFAULTS.get(option, value)}
    if not changed:
        return name
    return f"{name}-{hashlib.sha256(canonical_json(changed).encode()).hexdigest()[:8]}"
