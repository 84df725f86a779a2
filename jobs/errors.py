"""Errors with a message for people: what, which value, which path, what to do next."""

from __future__ import annotations


class ConfigError(ValueError):
    """The configuration cannot be run. Carries every problem found, not only the first."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class RecordError(ValueError):
    """A file of records is not what its place says it is."""


class CheckpointError(ValueError):
    """A checkpoint is damaged or belongs to something else."""


class DataError(ValueError):
    """Images of a dataset are missing, broken or not what its entry says."""


class TrainingDivergedError(RuntimeError):
    """The training loss is not finite any more."""
