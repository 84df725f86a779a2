"""Exact-grid noise drawn on the device that the network runs on, with the bits that the host draws.

Drawing the noise is integer arithmetic: Philox 4x64, a shift, a search among thresholds. A level of
the image plus the noise is an integer that float32 represents exactly, and the division by the number
of levels is correctly rounded, as on the host. So the classifier receives the same inputs, bit for
bit, on any device and in any batch.

Shapes: B rows of a batch, S slots, C H W image.
"""

import functools
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from smoothing.distributions import ExactGridNoise, NoiseDistribution
from smoothing.torch_noise import DeviceTable, torch_draw

Draw = Callable[..., Tensor]
"""Noisy copies of images: see ``torch_draw``."""


def device_noise(distribution: NoiseDistribution, device: torch.device) -> Draw | None:
    """Draws noise on a device, given no table; None if the host must: for a CPU, or noise that only numpy draws."""
    if device.type == "cpu" or not isinstance(distribution, ExactGridNoise):
        return None  # of Gaussian noise numpy uses a varying number of the stream's integers per number
    table = DeviceTable(distribution, device)
    return functools.partial(fastest_draw(table, device), table=table)


def fastest_draw(table: DeviceTable, device: torch.device) -> Draw:
    """The Triton kernel on CUDA, if it draws what torch draws; else ``torch_draw``."""
    if device.type != "cuda":
        return torch_draw
    try:
        from smoothing.triton_noise import triton_draw  # runs only on CUDA

        if not agree(triton_draw, table, device):
            raise ValueError("its draws differ from the reference")
    except Exception as error:  # any error of a compiler or a driver: torch_draw remains
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
