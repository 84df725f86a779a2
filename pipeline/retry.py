"""Which failed units are retried automatically: a pure function."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from jobs.files.failures import Failure, FailureClass

Retry = Literal["all", FailureClass]
TRANSIENT: frozenset[FailureClass] = frozenset({"preempted", "timeout", "node_fail"})
"""Not caused by the unit: it may succeed elsewhere or next time."""

_PATIENCE = 2
_NODE_AT_FAULT: frozenset[FailureClass] = frozenset({"node_fail", "setup", "unknown"})


def gave_up(counts: Counter[FailureClass], retry: Retry | None, num_memories: int = 1) -> FailureClass | None:
    """The class for which a unit is no longer retried, because it failed twice for this reason; None if it is retried.

    ``retry`` is a class to retry anyway, or all. A unit that runs out of memory gets ``num_memories`` values first.
    """
    for failure_class, count in counts.most_common():
        patience = max(_PATIENCE, num_memories) if failure_class == "host_oom" else _PATIENCE
        if count >= patience and failure_class not in TRANSIENT and retry not in ("all", failure_class):
            return failure_class
    return None


def bad_nodes(failures: Iterable[Failure]) -> set[str]:
    """The nodes that caused failures; retries avoid them."""
    return {failure.host for failure in failures if failure.job and failure.failure_class in _NODE_AT_FAULT}
