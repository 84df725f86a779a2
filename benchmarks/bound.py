"""The compute bound: floating-point operations of some work, and how many a device does per second."""

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import spent_s


def flops(work: Callable[[], object]) -> float:
    """Floating-point operations of the convolutions and matrix products, forward and backward, in a call."""
    counter = FlopCounterMode(display=False)
    with counter:
        work()
    return float(counter.get_total_flops())


def matmul_flops_per_s(dtype: torch.dtype, device: torch.device, clock: str) -> float:
    """Floating-point operations per second of the best of some large matrix products."""
    size = 8192 if device.type == "cuda" else 1024
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    best = 0.0
    for _ in range(20):
        began = spent_s(clock, device.type)
        for _ in range(4):
            matrix @ matrix
        best = max(best, 4 * 2 * size**3 / (spent_s(clock, device.type) - began))
    return best
