"""A trained classifier got ready to be asked many times: folded, in the layout and precision asked for."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from jobs.errors import ConfigError
from jobs.folding import FoldedClassifier
from jobs.models import Classifier
from jobs.specs import Precision

_DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class InferenceClassifier(nn.Module):
    """inputs_BCHW in [0, 1], float32, to logits_BK: what is certified is this function as it runs."""

    def __init__(self, folded: FoldedClassifier, dtype: torch.dtype) -> None:
        super().__init__()
        self._folded, self._dtype = folded, dtype
        folded.network.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, inputs_BCHW: Tensor) -> Tensor:
        # The normalisation is done in float32 whatever follows: pixels are known to that precision.
        prepared_BCHW = self._folded.prepared(inputs_BCHW)
        prepared_BCHW = prepared_BCHW.to(dtype=self._dtype, memory_format=torch.channels_last)
        logits: Tensor = self._folded.network(prepared_BCHW)
        return logits


def for_inference(
    classifier: Classifier, precision: Precision, device: torch.device, *, compiled: bool = False
) -> nn.Module:
    """The classifier as certification runs it.

    Args:
        classifier: Trained, in evaluation mode, on the device.
        precision: Arithmetic of the network. tf32 is for GPUs: float32 whose products are rounded.
        device: Where it runs.
        compiled: Let torch.compile fuse its operations; takes a minute, and a C++ compiler on a
            CPU.

    Raises:
        ConfigError: The device does not have that precision.
    """
    if precision == "tf32" and device.type != "cuda":
        raise ConfigError([f"certify.precision: tf32 needs a GPU, this is a {device.type}; use float32"])
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    ready = InferenceClassifier(FoldedClassifier(classifier), _DTYPES[precision]).eval().requires_grad_(False)
    return cast(nn.Module, torch.compile(ready, dynamic=False)) if compiled else ready
