"""Exact-grid noise in one Triton kernel: Philox, the search among thresholds, the sum and the division.

Imported only where it runs: on CUDA, or under Triton's interpreter (TRITON_INTERPRET=1). Everything except
the division is exact, and the division is correctly rounded, so the inputs equal those of
``smoothing.torch_noise``.

Shapes: B rows of a batch, S slots, C H W image.
"""

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor
from triton.language.random import philox_impl  # type: ignore[import-untyped]

from smoothing.distributions import UNIFORM_BITS
from smoothing.noise import BLOCK_ROWS
from smoothing.torch_noise import GUIDE_BITS, DeviceTable

_CALLS = 256  # calls of Philox per program; each gives four pixels


def triton_draw(centers_SCHW: Tensor, slots_B: Tensor, names_B4: Tensor, table: DeviceTable) -> Tensor:
    """``torch_draw`` by the kernel."""
    num_rows, (num_channels, height, width) = len(slots_B), centers_SCHW.shape[1:]
    num_pixels = num_channels * height * width
    inputs_BCHW = torch.empty(
        (num_rows, num_channels, height, width), device=centers_SCHW.device, memory_format=torch.channels_last
    )
    num_calls = num_pixels // 4 + (2 if num_pixels % 4 else 0)  # a row may begin in the middle of a call
    _kernel[(num_rows, triton.cdiv(num_calls, _CALLS))](
        inputs_BCHW,
        centers_SCHW.contiguous(),
        slots_B.contiguous(),
        names_B4.contiguous(),
        table.guide,
        table.thresholds,
        len(table.thresholds) // 2,
        float(table.num_levels),
        num_channels=num_channels,
        plane=height * width,
        rows_per_block=BLOCK_ROWS,
        surplus_bits=64 - UNIFORM_BITS,
        tail_bits=UNIFORM_BITS - GUIDE_BITS,
        calls=_CALLS,
    )
    return inputs_BCHW


@triton.jit  # type: ignore[untyped-decorator]
def _kernel(  # type: ignore[no-untyped-def]
    inputs,
    centers,
    slots,
    names,
    guide,
    thresholds,
    reach,
    num_levels,
    num_channels: tl.constexpr,
    plane: tl.constexpr,
    rows_per_block: tl.constexpr,
    surplus_bits: tl.constexpr,
    tail_bits: tl.constexpr,
    calls: tl.constexpr,
):
    """Some pixels of one row."""
    row = tl.program_id(0).to(tl.int64)
    seed = tl.load(names + 4 * row).to(tl.uint64, bitcast=True)
    index = tl.load(names + 4 * row + 1).to(tl.uint64, bitcast=True)
    stage = tl.load(names + 4 * row + 2).to(tl.uint64, bitcast=True)
    number = tl.load(names + 4 * row + 3)
    num_pixels: tl.constexpr = num_channels * plane
    first = number % rows_per_block * num_pixels
    own_call = tl.program_id(1) * calls + tl.arange(0, calls)
    counter = (first // 4 + own_call + 1).to(tl.uint64)  # numpy increments the counter before the call
    nought = tl.zeros_like(counter)
    block = nought + (number // rows_per_block).to(tl.uint64)
    w0, w1, w2, w3 = philox_impl(counter, nought, block, nought + stage, seed, index)
    center = centers + tl.load(slots + row) * num_pixels
    own_inputs = inputs + row * num_pixels
    for word in tl.static_range(4):
        bits = w0 if word == 0 else (w1 if word == 1 else (w2 if word == 2 else w3))
        uniform = (bits >> surplus_bits).to(tl.int64)
        leading = uniform >> tail_bits
        low = tl.load(guide + leading)
        high = tl.load(guide + leading + 1)
        while tl.max(high - low, axis=0) > 0:  # for most pixels the guide has already decided
            is_open = low < high
            middle = (low + high) // 2
            threshold = tl.load(thresholds + middle, mask=is_open, other=0)
            is_above = is_open & (threshold > uniform)
            low = tl.where(is_open & (threshold <= uniform), middle + 1, low)
            high = tl.where(is_above, middle, high)
        pixel = 4 * own_call + word - (first % 4).to(tl.int32)
        is_own = (pixel >= 0) & (pixel < num_pixels)
        level = tl.load(center + pixel, mask=is_own, other=0.0)
        value = tl.div_rn(level + (low - reach).to(tl.float32), num_levels)
        place = pixel % plane * num_channels + pixel // plane  # channels last
        tl.store(own_inputs + place, value, mask=is_own)
