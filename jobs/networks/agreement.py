"""How often a network in a lower precision votes as it does in float32: some kernels of it have been wrong."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from jobs.errors import ConfigError
from smoothing.certify import LabelledImage
from smoothing.counts import Draws, VoteCounter
from smoothing.noise import BLOCK_ROWS, NoiseStream

NUM_ROWS = 1000
_WARN_BELOW = 0.99


def first_votes(counter: VoteCounter, images: Sequence[LabelledImage], seed: int) -> Tensor:
    """The votes, on the host, of ``NUM_ROWS`` noisy rows of at least one image: their selection's first blocks."""
    found = []
    for number in range(NUM_ROWS // BLOCK_ROWS):
        image = images[number % len(images)]
        stream = NoiseStream(seed=seed, index=image.index, stage="selection")
        counter.assign(0, image.image_CHW)
        draws = Draws(slot=0, stream=stream, block_nr=number // len(images), num_rows=BLOCK_ROWS)
        found.append(counter.row_votes([draws])[:BLOCK_ROWS].cpu())
    return torch.cat(found)


def equal_votes(votes_B: Tensor, others_B: Tensor, num_classes: int) -> float:
    """The share of equal votes among the rows where both are votes."""
    is_vote_B = (votes_B < num_classes) & (others_B < num_classes)  # what is none ends the certification anyway
    return float((votes_B == others_B)[is_vote_B].double().mean()) if is_vote_B.any() else 1.0


def check_equal_votes(share: float, precision: str, least: float) -> None:
    """Judge a share of equal votes: warn of a low one.

    Raises:
        ConfigError: It is below ``least``.
    """
    found = f"{precision} and float32 give the same vote on {share:.1%} of {NUM_ROWS} noisy images"
    if share < least:
        raise ConfigError(
            [
                f"certify.precision: {found}, less than cluster.min_equal_votes={least}. Certificates would be "
                "valid, but for another and probably worse model. Use certify.precision=float32 or another version "
                "of torch; cluster.min_equal_votes=0 certifies the model as it is"
            ]
        )
    if share < _WARN_BELOW:
        logging.warning("%s: certificates are valid, but for a slightly different model", found)
    else:
        logging.info("%s", found)
