"""How many CPUs this process may use."""

from __future__ import annotations

import os


def num_cpus() -> int:
    """CPUs that this process may use, at least 1: fewer than the machine has where an affinity mask says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
