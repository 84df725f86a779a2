"""torch.compile, as configurations name it."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from jobs.specs.units import Compile


def compiled(module: nn.Module, compile: Compile) -> nn.Module:
    """The module, or where asked for one that torch.compile makes of it, with the same weights.

    Compiles at the first call, and again for inputs of another shape. Weights may change in place.
    """
    if compile is False:
        return module
    mode = None if compile is True else compile
    return cast(nn.Module, torch.compile(module, dynamic=False, mode=mode))
