"""The resources that a unit used: writes them to its log when it ends, and reads them."""

import json
import logging
import re
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

_GB = 1024**3
_LINE = re.compile(r"INFO used (\{.*\})$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Usage:
    wall_s: float  # seconds from begin to end
    cpu_s: float  # seconds of all its CPUs together
    memory_gb: float  # the most memory that its process held
    gpu_memory_gb: float = 0.0  # the most GPU memory that torch reserved; 0 without a GPU
    gpu_total_gb: float = 0.0  # the memory of that GPU


def clocks() -> tuple[float, float]:
    """Wall time and CPU time of this process, in seconds."""
    return time.monotonic(), time.process_time()


def log_usage(began: tuple[float, float]) -> None:
    """Log what this process has used since these ``clocks``."""
    wall_s, cpu_s = (now - then for now, then in zip(clocks(), began, strict=True))
    torch = sys.modules.get("torch")  # a process that has not imported it used no GPU
    reserved = total = 0.0
    if torch is not None and torch.cuda.is_initialized():
        reserved = torch.cuda.max_memory_reserved() / _GB
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory / _GB
    used = Usage(
        wall_s=round(wall_s, 1),
        cpu_s=round(cpu_s, 1),
        memory_gb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GB, 3),
        gpu_memory_gb=round(reserved, 3),
        gpu_total_gb=round(total, 3),
    )
    logging.info("used %s", json.dumps(asdict(used)))


def read_usage(log_path: Path) -> Usage | None:
    """What the last run of a unit used, by its log; None if the log does not say."""
    try:
        found = _LINE.findall(log_path.read_text(encoding="utf-8", errors="replace"))
        return Usage(**json.loads(found[-1])) if found else None
    except (OSError, ValueError, TypeError):
        return None
