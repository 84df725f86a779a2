"""A line about the machine of a measurement, and the clock."""

import importlib.metadata
import os
import platform
import sys
import time
from pathlib import Path

from jobs.host import num_cpus


def machine() -> str:
    """Date, processor or GPU, cores, load, versions, and threads where torch is in use."""
    load = os.getloadavg()[0]
    cores = num_cpus()
    # Whoever does not use torch is not made to load it: it would count as his memory.
    torch = sys.modules.get("torch")
    name = torch.cuda.get_device_name() if torch and torch.cuda.is_available() else _processor()
    threads = f"{torch.get_num_threads()} threads, " if torch else ""
    return (
        f"{time.strftime('%Y-%m-%d')}, {name}, {cores} CPU cores (load {load:.1f}), {threads}"
        f"torch {importlib.metadata.version('torch')}, python {platform.python_version()}"
    )


def spent_s(clock: str, device_type: str) -> float:
    """Seconds on a clock, after all work given to the device is done.

    Args:
        clock: wall, or cpu: the seconds of this process alone, which tells the truth on a machine
            that others use too.
        device_type: Whose work is waited for: cpu or cuda.
    """
    if device_type == "cuda":
        sys.modules["torch"].cuda.synchronize()
    return time.perf_counter() if clock == "wall" else time.process_time()


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"
