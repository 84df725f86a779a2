"""What the records of a certification or an attack look like, from its specs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jobs.files import attack_records, records
from jobs.files.attack_records import ATTACK
from jobs.files.records import CERTIFICATION, RecordKind
from jobs.specs.keys import canonical_json
from jobs.specs.runs import Run, ShardStage
from jobs.specs.train import TrainSpec, train_fields


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


def layout_of(run: Run) -> Layout:
    """The layout of a run's records."""
    kind, columns = _KINDS[run.stage]
    return Layout(kind=kind, specs=spec_metadata(run), columns=columns(run.train, run.task))


def kind_of(stage: ShardStage) -> RecordKind:
    """The schema of a stage's records."""
    return _KINDS[stage][0]


def spec_metadata(run: Run) -> dict[str, str]:
    """Both specs of a run as file metadata."""
    return {
        "train_spec": canonical_json(train_fields(run.train)),
        f"{run.stage}_spec": canonical_json(asdict(run.task)),
    }


_KINDS: Mapping[ShardStage, tuple[RecordKind, Callable[[TrainSpec, Any], dict[str, Any]]]] = {
    "certify": (CERTIFICATION, records.run_columns),
    "attack": (ATTACK, attack_records.run_columns),
}
