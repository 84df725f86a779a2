"""Finds whatever would make the host wait for a device, on a machine without one.

Tensors on META have shapes but no values. Asking for one (``item``, ``bool``, a copy to the host, a
shape that depends on data) raises by itself; ``NoBlockingCopies`` watches copies in the other direction.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

META = torch.device("meta")


class BlockingCopyError(AssertionError):
    """The host would wait for the device."""


class NoBlockingCopies(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises BlockingCopyError where something is copied to the device and the host waits for it."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = args[-1] if func is torch.ops.aten._to_copy.default else args[1]
            is_asynchronous = (kwargs or {}).get("non_blocking", False) or args[2:] == (True,)
            if source.device != META and result.device == META and not is_asynchronous:
                raise BlockingCopyError(f"{func} from {source.device}")
        return result
