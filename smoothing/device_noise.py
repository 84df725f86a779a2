"""Exact-grid noise drawn on the device that the network runs on, with the bits that the host draws.

Drawing the noise is integer arithmetic: Philox 4x64, a shift, a search among thresholds. A level of
the image plus the noise is an integer that float32 represents exactly, and the division by the number
of levels is correctly rounded, as on the host. So the classifier receives the same inputs, bit for
bit, on any device and in any batch.

Shapes: B rows of a batch, S slots, C H W image.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from smoothing.distributions import GridTable, NoiseDistribution
from smoothing.torch_noise import DeviceTable, torch_draw

Draw = Callable[[Tensor, Tensor, Tensor, DeviceTable], Tensor]
"""Noisy copies of images: see ``torch_draw``."""


class DeviceNoise:
    """Draws a grid's noise on a device and adds it to images there."""

    def __init__(self, table: GridTable, device: torch.device, draw: Draw | None = None) -> None:
        """Prepare to draw.

        Args:
            table: Thresholds of the noise.
            device: The device.
            draw: Implementation; None: the fastest one for the device.
        """
        self._table = DeviceTable(table, device)
        self._draw = fastest_draw(self._table, device) if draw is None else draw

    def inputs(self, centers_SCHW: Tensor, slots_B: Tensor, names_B4: Tensor) -> Tensor:
        """Noisy copies of images.

        Args:
            centers_SCHW: Levels of the images, integers in float32.
            slots_B: The image that each row is a copy of, int64.
            names_B4: The noise of each row (``NoiseStream.row_names``); any rows, in any order.

        Returns:
            inputs_BCHW, the classifier's inputs in pixels of [0, 1], float32 and channels last: (level + noise) /
            num_levels, correctly rounded. They are not in the network's own precision: the classifier
            subtracts the mean before it rounds, and is the same function wherever noise is drawn.
        """
        return self._draw(centers_SCHW, slots_B, names_B4, self._table)


def device_noise(distribution: NoiseDistribution, device: torch.device) -> DeviceNoise | None:
    """Draws noise on a device; None if the host must draw it: for a CPU, and for noise that only numpy draws."""
    table = None if device.type == "cpu" else distribution.table()
    return None if table is None else DeviceNoise(table, device)


def fastest_draw(table: DeviceTable, device: torch.device) -> Draw:
    """The Triton kernel on CUDA, if it draws what torch draws; else ``torch_draw``."""
    if device.type != "cuda":
        return torch_draw
    try:
        from smoothing.triton_noise import triton_draw  # runs only on CUDA

        if not agree(triton_draw, table, device):
            raise ValueError("its draws differ from the reference")
    except Exception as error:  # whatever a compiler or a driver may raise: torch_draw remains
        logging.warning(
            "the kernel that draws noise on the GPU is not used (%s: %s); torch operations draw the same noise more "
            "slowly. Check that triton and a C compiler are installed",
            type(error).__name__,
            str(error).partition("\n")[0],
        )
        return torch_draw
    return triton_draw


def agree(draw: Draw, table: DeviceTable, device: torch.device) -> bool:
    """Whether an implementation gives the reference's inputs, for rows of all kinds of streams."""
    generator = torch.Generator().manual_seed(0)
    names_B4 = torch.randint(-(2**63), 2**63 - 1, (64, 4), generator=generator)
    names_B4[:, 2] %= 4
    names_B4[:, 3] %= 10**6
    slots_B, centers_SCHW = torch.arange(64) % 2, torch.tensor([0.0, table.num_levels]).repeat_interleave(3 * 32 * 32)
    centers_SCHW, slots_B, names_B4 = (
        values.to(device) for values in (centers_SCHW.view(2, 3, 32, 32), slots_B, names_B4)
    )
    found = draw(centers_SCHW, slots_B, names_B4, table)
    return torch.equal(found, torch_draw(centers_SCHW, slots_B, names_B4, table))
