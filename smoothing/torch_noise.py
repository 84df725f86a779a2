"""Exact-grid noise drawn by torch operations on any device: the reference for every other implementation.

Shapes: B rows of a batch, S slots, N calls of the generator, C H W image, P pixels (C H W) of an image in one row.
"""

import numpy as np
import torch
from torch import Tensor

from smoothing.distributions import UNIFORM_BITS, ExactGridNoise
from smoothing.noise import BLOCK_ROWS

GUIDE_BITS = 16
_MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157  # of Philox 4x64; Salmon et al. 2011
_KEY_STEPS = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
_ROUNDS = 10
_LOW = 0xFFFFFFFF
_VALUES_AT_ONCE = 1 << 22  # each needs a dozen 64-bit integers


class DeviceTable:
    """The thresholds of a grid's noise on a device, with a table that narrows the search.

    ``guide``, int32 of shape (2**GUIDE_BITS + 1,), has for each value of the leading bits the number of thresholds at
    or below the first integer with these bits. The number for any integer with these bits lies between this entry and
    the next.
    """

    def __init__(self, noise: ExactGridNoise, device: torch.device) -> None:
        firsts = np.arange((1 << GUIDE_BITS) + 1, dtype=np.int64) << (UNIFORM_BITS - GUIDE_BITS)
        guide = np.searchsorted(noise.thresholds, firsts, side="right").astype(np.int32)
        self.thresholds = torch.from_numpy(noise.thresholds).to(device)
        self.guide = torch.from_numpy(guide).to(device)
        self.num_levels = noise.num_levels


def torch_draw(centers_SCHW: Tensor, slots_B: Tensor, names_B4: Tensor, table: DeviceTable) -> Tensor:
    """Noisy copies of images, drawn by torch operations, some rows at a time.

    Args:
        centers_SCHW: Levels of the images, integers in float32.
        slots_B: The image that each row is a copy of, int64.
        names_B4: The noise of each row (``NoiseStream.row_names``); any rows, in any order.
        table: Of the noise.

    Returns:
        inputs_BCHW, the classifier's inputs in pixels of [0, 1], float32 and channels last: (level + noise) /
        num_levels, correctly rounded. They are not in the network's own precision: the classifier
        subtracts the mean before it rounds, and is the same function wherever noise is drawn.
    """
    num_rows, shape = len(slots_B), centers_SCHW.shape[1:]
    inputs_BCHW = centers_SCHW.new_empty((num_rows, *shape)).to(memory_format=torch.channels_last)
    # A tensor, because a GPU divides by a Python number as a multiplication by its rounded inverse.
    num_levels = centers_SCHW.new_full((), table.num_levels)
    at_once = max(1, _VALUES_AT_ONCE // shape.numel())
    for first in range(0, num_rows, at_once):
        rows = slice(first, first + at_once)
        uniform_BP = _uniform(names_B4[rows], shape.numel())
        noise_BP = torch.bucketize(uniform_BP, table.thresholds, right=True) - len(table.thresholds) // 2
        sums_BCHW = centers_SCHW[slots_B[rows]] + noise_BP.to(centers_SCHW.dtype).view(-1, *shape)
        inputs_BCHW[rows] = sums_BCHW / num_levels
    return inputs_BCHW


def _uniform(names_B4: Tensor, num_pixels: int) -> Tensor:
    """The stream's integers below 2**62 for each pixel of each row, int64, shape (B, P)."""
    seeds_B1, indices_B1, stages_B1, numbers_B1 = (names_B4[:, column, None] for column in range(4))
    blocks_B1 = numbers_B1 // BLOCK_ROWS
    firsts_B1 = numbers_B1 % BLOCK_ROWS * num_pixels
    # One call gives four integers, and a row may begin in the middle of a call. numpy increments the
    # counter before the call.
    calls_BN = firsts_B1 // 4 + torch.arange(1, num_pixels // 4 + 3, device=names_B4.device)
    words = _philox((calls_BN, torch.zeros_like(calls_BN), blocks_B1, stages_B1), (seeds_B1, indices_B1))
    places_BP = firsts_B1 % 4 + torch.arange(num_pixels, device=names_B4.device)
    bits_BP = torch.stack(words, dim=2).flatten(1).gather(1, places_BP)
    return (bits_BP >> (64 - UNIFORM_BITS)) & ((1 << UNIFORM_BITS) - 1)


def _philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Philox 4x64-10 on int64, whose sums and products wrap."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(_ROUNDS):
        high0, low0 = _product(c0, _MULTIPLIERS[0])
        high1, low1 = _product(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + _signed(_KEY_STEPS[0]), k1 + _signed(_KEY_STEPS[1])
    return c0, c1, c2, c3


def _product(values: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """The high and low 64 bits of unsigned products, computed from 32-bit halves."""
    high, low = multiplier >> 32, multiplier & _LOW
    their_high, their_low = (values >> 32) & _LOW, values & _LOW
    first = their_low * high + (((their_low * low) >> 32) & _LOW)
    second = their_high * low + (first & _LOW)
    return their_high * high + ((first >> 32) & _LOW) + ((second >> 32) & _LOW), values * _signed(multiplier)


def _signed(bits: int) -> int:
    return bits - (1 << 64) if bits >> 63 else bits
