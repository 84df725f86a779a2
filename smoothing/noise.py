"""Gaussian noise from one random stream per image and stage, cut into blocks of fixed size.

The stream is counter-based (Philox 4x64; Salmon et al. 2011): key = (seed, image index), counter =
(running, 0, block, stage). Two different (seed, index, stage, block) therefore never share a
number, and any block can be drawn at any time, in any order, by any worker.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Stage = Literal["selection", "estimation", "prediction", "attack"]
_STAGE_COUNTER: dict[Stage, int] = {"selection": 0, "estimation": 1, "prediction": 2, "attack": 3}

BLOCK_ROWS = 100
"""Noise vectors per block: CERTIFY's n0, and a divisor of every n in common use. Another value would
give other counts for the same seed."""


@dataclass(frozen=True, kw_only=True)
class NoiseStream:
    """The noise of one image in one stage."""

    seed: int  # of the run, 0 <= seed < 2**64
    index: int  # of the image in its dataset, 0 <= index < 2**64
    stage: Stage  # use of the noise; stages are independent of each other

    def block(self, block_nr: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Standard normal noise, float32, shape (BLOCK_ROWS, *shape); depends only on the arguments."""
        generator = np.random.Generator(self.philox(block_nr))
        return generator.standard_normal((BLOCK_ROWS, *shape), dtype=np.float32)

    def row_names(self, block_nr: int) -> npt.NDArray[np.int64]:
        """The names of a block's vectors for a device that draws them, int64, shape (BLOCK_ROWS, 4).

        Seed and index as the bits of unsigned integers, the number of the stage, and the number of the
        vector in the stream.
        """
        names = np.empty((BLOCK_ROWS, 4), dtype=np.uint64)
        names[:, :3] = np.array((self.seed, self.index, _STAGE_COUNTER[self.stage]), dtype=np.uint64)
        names[:, 3] = np.arange(block_nr * BLOCK_ROWS, (block_nr + 1) * BLOCK_ROWS)
        return names.view(np.int64)

    def philox(self, block_nr: int) -> np.random.Philox:
        """The generator of a block's numbers, from the first."""
        counter = (0, 0, block_nr, _STAGE_COUNTER[self.stage])
        # numpy would convert a pair with a value >= 2**63 to floats, which loses the low bits.
        key = np.array((self.seed, self.index), dtype=np.uint64)
        return np.random.Philox(counter=counter, key=key)
