"""The device of a process, set up for bit-identical results."""

import logging
import os

import torch

from jobs.plugins import loading
from jobs.specs.units import Resources


def set_up_device(resources: Resources) -> torch.device:
    """The torch device to work on; sets threads, deterministic kernels and plug-ins for this process.

    Raises ConfigError if the plug-ins' folder is not there.
    """
    loading.use(resources.plugins)
    torch.set_num_threads(resources.threads)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    # By default, torch lets convolutions on a GPU round their factors; float32 must mean float32.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if resources.device != "auto":
        return torch.device(resources.device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if given := os.environ.get("CUDA_VISIBLE_DEVICES"):
        logging.warning(
            "given GPUs [%s], but torch finds none: running on the CPU. Check with nvidia-smi whether torch %s is "
            "built for this driver; with cluster.device=cuda this is an error",
            given,
            torch.__version__,
        )
    return torch.device("cpu")


def device_name(device: torch.device) -> str:
    """What to call the device in provenance: the GPU's model, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
