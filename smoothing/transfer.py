"""Values on their way to a device, without making the host wait for it."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Host values on a device; to a GPU from pinned memory, since the host waits for a copy from any other."""
    if device.type == "cuda" and not values.is_pinned():
        values = values.pin_memory()
    return values.to(device, non_blocking=True)
