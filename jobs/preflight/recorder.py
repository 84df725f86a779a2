"""Records the operations of a forward pass, with the lines of a plug-in's code that they come from.

Shapes: R rows of a batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from jobs.plugins import loading


@dataclass(frozen=True, kw_only=True, eq=False)
class Operation:
    name: str  # the function's, with its place: ``mylab/nets.py:12: add``
    output: Tensor | None  # what it returned, if it is a tensor
    settings: str  # its other arguments, as text


class _Recording(TorchFunctionMode):
    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if (name := getattr(func, "__name__", str(func))) != "__get__":  # a property, such as x.shape
            given = [*args, *(kwargs or {}).values()]
            settings = repr([value for value in given if isinstance(value, bool | int | float | str)])
            name = ": ".join(filter(None, [loading.place_here(), name]))
            kept = output.detach() if isinstance(output, Tensor) else None
            self.operations.append(Operation(name=name, output=kept, settings=settings))
        return output


def course(network: Callable[[Tensor], Tensor], inputs_RCHW: Tensor) -> list[Operation]:
    """The operations of a forward pass, in order."""
    recording = _Recording()
    with torch.no_grad(), recording:
        network(inputs_RCHW)
    return recording.operations


def course_on(device: str, network: nn.Module, inputs_RCHW: Tensor) -> list[Operation]:
    """The operations on a device that may not exist here, on tensors without content.

    What Python code reads (is_cuda, device.type) is as on the device. Raises any error, for example if the operations
    depend on values.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        state = {name: torch.empty_like(value, device=device) for name, value in network.state_dict().items()}
        inputs_RCHW = torch.empty_like(inputs_RCHW, device=device)
        return course(lambda inputs: torch.func.functional_call(network, state, (inputs,)), inputs_RCHW)


def first_apart(
    ones: Sequence[Operation], others: Sequence[Operation], agree: Callable[[Operation, Operation], bool]
) -> str | None:
    """The first operation that differs between two forward passes."""
    for one, other in zip(ones, others, strict=False):
        if one.name != other.name or not agree(one, other):
            return one.name
    longer, shared = max(ones, others, key=len), min(len(ones), len(others))
    return longer[shared].name if len(longer) > shared else None
