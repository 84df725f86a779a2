"""Prepares a trained classifier for inference: folded, compiled, with the chosen layout and precision."""

import logging
import time
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from jobs.errors import ConfigError
from jobs.networks.classifier import Classifier
from jobs.networks.folding import FoldedClassifier
from jobs.specs.certify import Precision
from jobs.specs.units import Compile

DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_MIN_EAGER_S = 300.0  # compiling ResNet-110 takes a minute, more on a busy machine
_MIN_GAIN = 1.1  # a smaller gain may be chance
_REPEATS = 3


def for_inference(
    classifier: Classifier, precision: Precision, device: torch.device, *, compile: Compile = False
) -> nn.Module:
    """The classifier as certification runs it: what is certified is this function.

    Args:
        classifier: Trained, in evaluation mode, on the device.
        precision: Arithmetic of the network. tf32 is for GPUs: float32 whose products are rounded.
        device: Where it runs. Raises ConfigError if it does not have that precision.
        compile: Let torch.compile fuse its operations; takes a minute, and a C++ compiler on a CPU.

    Returns:
        Maps inputs_BCHW in [0, 1], float32, to logits_BK, float32.
    """
    if precision == "tf32" and device.type != "cuda":
        raise ConfigError(f"certify.precision: tf32 needs a GPU, this is a {device.type}; use float32")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    return compiled(FoldedClassifier(classifier, DTYPES[precision]), compile, is_constant=True)


def compiled(module: nn.Module, compile: Compile, *, is_constant: bool = False) -> nn.Module:
    """The module, or if requested the result of torch.compile, with the same weights.

    Compiles at the first call, and again for inputs of another shape. Weights that are ``is_constant`` may be laid out
    for the kernels of a CPU; others may change in place.
    """
    if compile is False:
        return module
    fast = torch.compile(module, dynamic=False, mode=None if compile is True else compile)
    is_on_cpu = next(module.parameters()).device.type == "cpu"
    return _Frozen(fast) if is_constant and is_on_cpu else cast(nn.Module, fast)


class _Frozen(nn.Module):
    """A compiled module whose weights inductor lays out for its kernels when it compiles, without gradients."""

    def __init__(self, fast: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._fast, self._seen = fast, set[tuple[torch.Size, bool]]()

    def forward(self, inputs: Tensor) -> Tensor:
        kind = inputs.shape, inputs.is_inference()  # it compiles for each
        if kind in self._seen:
            return self._fast(inputs)
        # A setting of the process; elsewhere weights may change. As an option of compile it has no effect.
        with torch._inductor.config.patch(freezing=True):
            outputs = self._fast(inputs)
        self._seen.add(kind)
        return outputs


@torch.inference_mode()
def compiled_where_it_pays(module: nn.Module, inputs_BCHW: Tensor, num_rows: int) -> tuple[nn.Module, Compile]:
    """A module, compiled if a measurement shows that this saves time; and whether it is compiled.

    Args:
        module: Its weights never change.
        inputs_BCHW: Of the shape that it will be given; on a CPU by threads with one thread each.
        num_rows: How many rows it will be given at most.
    """
    inputs_BCHW = inputs_BCHW.clone()  # a tensor of inference mode, like its inputs later
    num_threads = torch.get_num_threads()
    if inputs_BCHW.device.type == "cpu":
        torch.set_num_threads(1)
    try:
        eager_s = _seconds(module, inputs_BCHW)
        calls = num_rows / len(inputs_BCHW) / (num_threads if inputs_BCHW.device.type == "cpu" else 1)
        if calls * eager_s < _MIN_EAGER_S:
            logging.info("compile=auto: no, because the work takes only about %.0f s without it", calls * eager_s)
            return module, False
        began = time.perf_counter()
        faster = compiled(module, True, is_constant=True)
        faster(inputs_BCHW)
        ready_s, fast_s = time.perf_counter() - began, _seconds(faster, inputs_BCHW)
    except Exception as error:  # such as a missing C++ compiler; the module works without compiling
        reason = str(error).partition("\n")[0]
        logging.warning("compile=auto: no, because torch.compile failed (%s: %s)", type(error).__name__, reason)
        return module, False
    finally:
        torch.set_num_threads(num_threads)
    pays = eager_s > _MIN_GAIN * fast_s
    logging.info(
        "compile=auto: %s; %.0f rows a second with it and %.0f without%s; compiling took %.0f s",
        "yes" if pays else "no",
        len(inputs_BCHW) / fast_s,
        len(inputs_BCHW) / eager_s,
        " on each thread" if inputs_BCHW.device.type == "cpu" else "",
        ready_s,
    )
    return (faster, True) if pays else (module, False)


def _seconds(module: Callable[[Tensor], Tensor], inputs_BCHW: Tensor) -> float:
    """Seconds of a call: the shortest of several, after one to warm up."""
    best = float("inf")
    for number in range(_REPEATS + 1):
        began = time.perf_counter()
        module(inputs_BCHW)
        if inputs_BCHW.device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began) if number else best
    return best
