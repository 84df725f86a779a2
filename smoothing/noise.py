"""Gaussian noise from one random stream per image and stage, cut into blocks of fixed size.

The stream is counter-based (Philox 4x64; Salmon et al. 2011): key = (seed, image index), counter =
(running, 0, block, stage). Two different (seed, index, stage, block) therefore never share a
number, and any block can be drawn at any time, in any order, by any worker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Stage = Literal["selection", "estimation", "prediction"]
_STAGE_COUNTER: dict[Stage, int] = {"selection": 0, "estimation": 1, "prediction": 2}

BLOCK_ROWS = 100
"""Noise vectors per block: CERTIFY's n0, and a divisor of every n in common use. Part of what a
seed means: another value gives other counts for the same seed."""


@dataclass(frozen=True, kw_only=True)
class NoiseStream:
    """The noise of one image in one stage.

    Attributes:
        seed: Seed of the run, 0 <= seed < 2**64.
        index: Dataset index of the image, 0 <= index < 2**64.
        stage: What the noise is for; stages are independent of each other.
    """

    seed: int
    index: int
    stage: Stage

    def block(self, block_nr: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Standard normal noise, float32, shape (BLOCK_ROWS, *shape): a function of its arguments."""
        counter = (0, 0, block_nr, _STAGE_COUNTER[self.stage])
        # numpy would read a pair with one value >= 2**63 as floats, which drops its low bits.
        key = np.array((self.seed, self.index), dtype=np.uint64)
        philox = np.random.Philox(counter=counter, key=key)
        return np.random.Generator(philox).standard_normal((BLOCK_ROWS, *shape), dtype=np.float32)
