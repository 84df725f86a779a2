"""Which GPUs this machine has, and which of them a unit gets."""

import os
import shutil
import subprocess
from collections.abc import Collection, Sequence
from itertools import takewhile

from jobs.specs.units import Unit

_PATIENCE_S = 30.0


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES or, if it is not set, nvidia-smi names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        # CUDA ignores everything after the first invalid name.
        return tuple(takewhile(lambda name: name not in ("", "-1"), (name.strip() for name in named.split(","))))
    if shutil.which("nvidia-smi") is None:
        return ()
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in done.stdout.splitlines() if line.startswith("GPU-"))


def num_gpus_of(unit: Unit) -> int:
    """The number of GPUs that a unit uses on a machine with GPUs."""
    return 0 if unit.train is None else unit.num_processes


def choose_gpus(
    gpus: Sequence[str], in_use: Collection[Sequence[str]], *, num_needed: int, runs_per_gpu: int
) -> tuple[str, ...] | None:
    """The GPUs for one more unit; None if it has to wait until another unit has ended.

    ``in_use`` lists the GPUs of each running unit. A unit that needs one GPU shares the least used with up to
    ``runs_per_gpu`` - 1 others; one that needs several shares none. If it needs more than there are, it gets all and
    reports the problem itself.
    """
    num_users = {gpu: sum(gpu in own for own in in_use) for gpu in gpus}
    if num_needed != 1:
        idle = [gpu for gpu in gpus if num_users[gpu] == 0]
        num_given = min(num_needed, len(gpus))
        return tuple(idle[:num_given]) if len(idle) >= num_given else None
    kept = {gpu for own in in_use if len(own) > 1 for gpu in own}
    free = [gpu for gpu in gpus if num_users[gpu] < runs_per_gpu and gpu not in kept]
    return (min(free, key=lambda gpu: num_users[gpu]),) if free else None
