"""What the records of a certification or an attack look like, from its specs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.files import attack_records, records
from jobs.files.attack_records import ATTACK
from jobs.files.records import CERTIFICATION, RecordKind
from jobs.specs.runs import Run, ShardedRun


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The layout of one run's records.

    Attributes:
        kind: Their schema.
        specs: The specs that their files' metadata hold, canonical JSON by name.
        columns: The columns that all of them share, with their values.
    """

    kind: RecordKind
    specs: Mapping[str, str]
    columns: Mapping[str, Any]


def layout_of(run: ShardedRun) -> Layout:
    """The layout of a run's records."""
    if isinstance(run, Run):
        return Layout(
            kind=CERTIFICATION,
            specs=records.spec_metadata(run.train, run.certify),
            columns=records.run_columns(run.train, run.certify),
        )
    return Layout(
        kind=ATTACK,
        specs=attack_records.spec_metadata(run.train, run.attack),
        columns=attack_records.run_columns(run.train, run.attack),
    )
