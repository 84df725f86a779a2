"""The device of a process, set up so that the same work gives the same bits."""

from __future__ import annotations

import torch

from jobs.units import Resources


def set_up_device(resources: Resources) -> torch.device:
    """The torch device to work on; sets threads and deterministic kernels for this process."""
    torch.set_num_threads(resources.threads)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    # torch's default lets a GPU's convolutions round their factors; float32 shall mean float32.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if resources.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(resources.device)


def device_name(device: torch.device) -> str:
    """What to call the device in provenance: the GPU's model, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
