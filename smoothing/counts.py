"""Votes of a base classifier under Gaussian noise.

Shapes: B rows of a batch, C H W image, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smoothing.noise import BLOCK_ROWS, NoiseStream

_CPU_ROWS = 5 * BLOCK_ROWS

BaseClassifier = Callable[[Tensor], Tensor]
"""Maps inputs_BCHW, pixels about [0, 1], to logits_BK."""


def class_counts(
    base_classifier: BaseClassifier,
    image_CHW: Tensor,
    *,
    sigma: float,
    num_samples: int,
    num_classes: int,
    stream: NoiseStream,
    batch_size: int,
) -> npt.NDArray[np.int64]:
    """Votes of the base classifier on ``num_samples`` noisy copies of an image.

    Args:
        base_classifier: In evaluation mode; a row's logits may not depend on the other rows.
        image_CHW: Pixels in [0, 1], float32, on the classifier's device.
        sigma: Standard deviation of the noise, > 0, in pixels of [0, 1].
        num_samples: Draws n >= 1.
        num_classes: K; logits must have as many columns.
        stream: Where the noise comes from. The first n vectors of the stream are used.
        batch_size: Rows handed to the device at a time, rounded down to a multiple of 500 (but
            not to 0).

    Returns:
        Votes per class, int64, shape (K,), summing to ``num_samples``.

    Raises:
        ValueError: ``num_samples`` or ``batch_size`` is below 1.

    Guarantee:
        The votes are independent draws of argmax f(x + sigma * noise). On a CPU they do not
        depend on ``batch_size`` at all, since the network is always given the same pieces. A GPU
        is given the full batch, and there a vote whose two best logits agree to within rounding
        may change with the shape of the batch.

    Source:
        Cohen et al. 2019, SampleUnderNoise.
    """
    if num_samples < 1 or batch_size < 1:
        raise ValueError(f"need at least one sample and row, got n={num_samples}, batch_size={batch_size}")
    counts_K = torch.zeros(num_classes, dtype=torch.int64, device=image_CHW.device)
    remaining = num_samples
    with torch.inference_mode():
        for noise_BCHW in _noise_batches(stream, image_CHW, num_samples, batch_size):
            votes_B = _votes(base_classifier, image_CHW + sigma * noise_BCHW)[:remaining]
            counts_K += torch.bincount(votes_B, minlength=num_classes)
            remaining -= len(votes_B)
    return counts_K.cpu().numpy()


def _noise_batches(stream: NoiseStream, image_CHW: Tensor, num_samples: int, batch_size: int) -> Iterator[Tensor]:
    num_blocks = -(-num_samples // BLOCK_ROWS)
    blocks_per_batch = max(1, batch_size // _CPU_ROWS) * (_CPU_ROWS // BLOCK_ROWS)
    for first in range(0, num_blocks, blocks_per_batch):
        numbers = range(first, min(first + blocks_per_batch, num_blocks))
        blocks = [stream.block(block_nr, tuple(image_CHW.shape)) for block_nr in numbers]
        yield torch.from_numpy(np.concatenate(blocks)).to(image_CHW.device)


def _votes(base_classifier: BaseClassifier, inputs_BCHW: Tensor) -> Tensor:
    # CPU kernels choose their blocking, and so their rounding, by the shape of the batch. Pieces
    # that do not depend on the batch size keep every vote the same, and stay in the cache.
    rows = _CPU_ROWS if inputs_BCHW.device.type == "cpu" else len(inputs_BCHW)
    return torch.cat([base_classifier(piece).argmax(dim=1) for piece in torch.split(inputs_BCHW, rows)])
