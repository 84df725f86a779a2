"""What a measurement was made on, in one line."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import torch


def machine() -> str:
    """Date, processor or GPU, cores, load and versions."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{time.strftime('%Y-%m-%d')}, {name}, {cores} CPU cores (load {load:.1f}), {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, python {platform.python_version()}"
    )


def spent_s(clock: str, device: torch.device) -> float:
    """Seconds on a clock, after all work given to the device is done.

    Args:
        clock: wall, or cpu.
        device: Whose work is waited for.

    The cpu clock counts this process alone, and so tells the truth on a machine that others use too.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() if clock == "wall" else time.process_time()


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"
