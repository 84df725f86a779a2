"""Errors with a message for people: what, which value, which path, what to do next."""

from collections.abc import Iterable


class ConfigError(ValueError):
    """The configuration cannot be run. Carries every problem found, not only the first."""

    def __init__(self, problems: str | list[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else problems
        super().__init__("\n".join(self.problems))


def refuse(problems: Iterable[str]) -> None:
    """Raise ConfigError with all problems, each once, if there are any."""
    if named := list(dict.fromkeys(problems)):
        raise ConfigError(named)


class RecordError(ValueError):
    """A file of records is missing, damaged, or does not match its path."""


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class DataError(ValueError):
    """Images of a dataset are missing, broken, or do not match its description."""


class TaskFailedError(RuntimeError):
    """One of the tasks that train a model together failed, for the reason in ``__cause__``."""

    def __init__(self, *, is_first: bool) -> None:
        super().__init__("a task failed")
        self.is_first = is_first  # whether it failed before any other, which then fail because they lost it


class FailedElsewhereError(RuntimeError):
    """A unit failed, and another of its tasks records the reason."""


class TrainingDivergedError(RuntimeError):
    """The training loss is no longer finite."""


class DiskFullError(OSError):
    """Nothing more can be written to a folder: its disk or quota is full."""
