"""Ways of drawing exact-grid noise, compared with the host's; as a command, Triton's interpreter.

TRITON_INTERPRET=1 python -m tests.smoothing.grid_draws
"""

import numpy as np
import torch

from smoothing.device_noise import Draw, fastest_draw
from smoothing.distributions import ExactGridNoise
from smoothing.noise import BLOCK_ROWS, NoiseStream, Stage
from smoothing.torch_noise import DeviceTable

STAGES: tuple[Stage, ...] = ("selection", "estimation", "prediction", "attack")
NUM_CASES = 20
# Of the last, a row does not begin where a call of the generator does.
_SHAPES = ((3, 64, 64), (1, 64, 72), (3, 61, 43))
_VALUES = 51_000  # of a case: a million of all cases


def num_different(draw: Draw | None, device: torch.device) -> tuple[int, int]:
    """How many of the classifier's inputs differ from the host's, over random cases and rows; and of how many."""
    generator = np.random.default_rng(5)
    found = [_compared(draw, device, generator, _SHAPES[case % len(_SHAPES)]) for case in range(NUM_CASES)]
    differences, values = zip(*found, strict=True)
    return sum(differences), sum(values)


def _compared(
    draw: Draw | None, device: torch.device, generator: np.random.Generator, shape: tuple[int, int, int]
) -> tuple[int, int]:
    seed, index = (int(value) for value in generator.integers(0, 2**64, 2, dtype=np.uint64))
    stream = NoiseStream(seed=seed, index=index, stage=STAGES[generator.integers(len(STAGES))])
    block_nr = int(generator.integers(0, 10_000))
    distribution = ExactGridNoise(float(generator.uniform(0.01, 1.2)), int(generator.choice([16, 255, 97])))
    centers_SCHW = torch.from_numpy(generator.integers(0, distribution.num_levels + 1, (2, *shape))).float()
    rows = generator.permutation(BLOCK_ROWS)[: -(-_VALUES // int(np.prod(shape)))]
    slots_B = torch.from_numpy(generator.integers(0, 2, len(rows)))
    noise_BCHW = torch.from_numpy(distribution.block(stream, block_nr, shape)[rows])
    expected_BCHW = distribution.inputs(centers_SCHW[slots_B], noise_BCHW)
    names_B4 = torch.from_numpy(stream.row_names(block_nr)[rows])
    table = DeviceTable(distribution, device)
    draw = draw or fastest_draw(table, device)
    found_BCHW = draw(*(values.to(device) for values in (centers_SCHW, slots_B, names_B4)), table)
    assert found_BCHW.is_contiguous(memory_format=torch.channels_last)
    return int((found_BCHW.cpu() != expected_BCHW).sum()), expected_BCHW.numel()


if __name__ == "__main__":
    from smoothing import triton_noise

    triton_noise._CALLS = 4096  # the interpreter takes as long for a small program as for a large one
    print(*num_different(triton_noise.triton_draw, torch.device("cpu")))
