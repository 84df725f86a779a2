"""A trained classifier got ready to be asked many times: folded, in the layout and precision asked for."""

from __future__ import annotations

import torch
from torch import nn

from jobs.errors import ConfigError
from jobs.networks.classifier import Classifier
from jobs.networks.compilation import compiled
from jobs.networks.folding import FoldedClassifier
from jobs.specs.certify import Precision
from jobs.specs.units import Compile

_DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def for_inference(
    classifier: Classifier, precision: Precision, device: torch.device, *, compile: Compile = False
) -> nn.Module:
    """The classifier as certification runs it: what is certified is this function.

    Args:
        classifier: Trained, in evaluation mode, on the device.
        precision: Arithmetic of the network. tf32 is for GPUs: float32 whose products are rounded.
        device: Where it runs.
        compile: Let torch.compile fuse its operations; takes a minute, and a C++ compiler on a
            CPU.

    Returns:
        Maps inputs_BCHW in [0, 1], float32, to logits_BK, float32.

    Raises:
        ConfigError: The device does not have that precision.
    """
    if precision == "tf32" and device.type != "cuda":
        raise ConfigError([f"certify.precision: tf32 needs a GPU, this is a {device.type}; use float32"])
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    return compiled(FoldedClassifier(classifier, _DTYPES[precision]), compile, is_constant=True)
