"""CERTIFY and PREDICT of Cohen et al. 2019, and CERTIFY with fewer samples."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smoothing.certificate import Certificate, prediction_from_counts
from smoothing.counts import BaseClassifier, Draws, LogitsError, VoteCounter, class_counts, draws_between
from smoothing.distributions import GaussianNoise, NoiseDistribution
from smoothing.noise import NoiseStream
from smoothing.radius import ABSTAIN
from smoothing.sequential import DecisionRules, Procedure, Sampling

_NAMED = 5  # images that a message names


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledImage:
    """An image to certify or to attack.

    Attributes:
        index: Index in its dataset; together with the seed it determines the noise.
        label: True class; certification reads it only with ``Procedure.stop_wrong``.
        image_CHW: Pixels in [0, 1], float32.
    """

    index: int
    label: int
    image_CHW: Tensor


def certify_images(
    base_classifier: BaseClassifier,
    images: Iterable[LabelledImage],
    procedure: Procedure,
    distribution: NoiseDistribution,
    *,
    num_classes: int,
    seed: int,
    batch_size: int,
    device: torch.device | None = None,
) -> Iterator[tuple[LabelledImage, Certificate]]:
    """Certify images; a batch holds noisy copies of several images.

    Args:
        base_classifier: Maps inputs_BCHW to logits_BK, in evaluation mode.
        images: All of one shape; taken one by one when there is room in a batch.
        procedure: How many votes to draw, and when to stop.
        distribution: Distribution of the noise.
        num_classes: K.
        seed: Seed of the run; the noise depends on (seed, index) alone.
        batch_size: Rows per batch on the device; does not change the result on a CPU.
        device: The classifier's device; None: that of the images. Images for a GPU are best left on
            the host: their noise is drawn there, and nothing has to be copied back.

    Yields:
        Each image with its certificate as soon as it is known, not always in the order given.

    Raises:
        LogitsError: Logits are not finite, or not one for each class; nothing is certified from them.
        OffGridError: An image is not on the grid of the noise.

    Guarantee:
        For each image, with probability at least 1 - alpha over its noise: either it abstains, or
        the smoothed classifier is constant, and equal to the prediction, within the radius.

    Source:
        Cohen et al. 2019, CERTIFY; with mode adaptive, group-sequential bounds by the union bound.
    """
    source = iter(images)
    first = next(source, None)
    if first is None:
        return
    shape = tuple(first.image_CHW.shape)
    total_variation = distribution.total_variation(first.image_CHW.numel())
    rules = DecisionRules(procedure, sigma=distribution.sigma, total_variation=total_variation)
    counter = VoteCounter(
        base_classifier,
        distribution,
        num_classes=num_classes,
        image_shape=shape,
        batch_size=batch_size,
        device=first.image_CHW.device if device is None else device,
    )
    queue = _Queue(itertools.chain([first], source), rules, counter, seed)
    for batch in counter.count(queue.batches()):
        yield from queue.settle(batch)


def certify(
    base_classifier: BaseClassifier,
    image_CHW: Tensor,
    *,
    sigma: float,
    n0: int,
    n: int,
    alpha: float,
    num_classes: int,
    seed: int,
    index: int,
    batch_size: int,
) -> Certificate:
    """Predict the smoothed classifier's class at one image and a radius around it.

    Args:
        base_classifier: Maps inputs_BCHW to logits_BK, in evaluation mode.
        image_CHW: Pixels in [0, 1], float32.
        sigma: Standard deviation of the noise, > 0.
        n0: Draws for choosing the class, >= 1.
        n: Separate draws for bounding its probability, >= 1.
        alpha: Probability that the certificate is wrong, in (0, 1).
        num_classes: K.
        seed: Seed of the run; the noise depends on (seed, index) alone.
        index: Dataset index of the image.
        batch_size: Rows per batch on the device; does not change the result on a CPU.

    Returns:
        The certificate with all votes, so that other bounds can be computed without sampling.

    Guarantee:
        With probability at least 1 - alpha over the noise: either it abstains, or the smoothed
        classifier is constant, and equal to the prediction, within the radius.

    Source:
        Cohen et al. 2019, CERTIFY.
    """
    images = [LabelledImage(index=index, label=ABSTAIN, image_CHW=image_CHW)]  # the label is not read
    procedure = Procedure(n0=n0, n=n, alpha=alpha)
    distribution = GaussianNoise(sigma)
    ((_, certificate),) = certify_images(
        base_classifier, images, procedure, distribution, num_classes=num_classes, seed=seed, batch_size=batch_size
    )
    return certificate


def predict(
    base_classifier: BaseClassifier,
    image_CHW: Tensor,
    *,
    sigma: float,
    n: int,
    alpha: float,
    num_classes: int,
    seed: int,
    index: int,
    batch_size: int,
) -> int:
    """The smoothed classifier's class at an image, or ABSTAIN.

    Arguments as for ``certify``; all n draws serve one test.

    Guarantee:
        The class returned differs from the smoothed classifier's with probability at most alpha.

    Source:
        Cohen et al. 2019, PREDICT.
    """
    counts = class_counts(
        base_classifier,
        image_CHW,
        sigma=sigma,
        num_samples=n,
        num_classes=num_classes,
        stream=NoiseStream(seed=seed, index=index, stage="prediction"),
        batch_size=batch_size,
    )
    return prediction_from_counts(counts, alpha=alpha)


@dataclass(eq=False)
class _InProgress:
    """An image in a slot; the first ``num_asked`` draws of its current stage have been submitted."""

    image: LabelledImage
    sampling: Sampling
    slot: int
    num_asked: int = 0

    @property
    def has_all_votes(self) -> bool:
        """Whether all the votes wanted before the next decision have been drawn."""
        return self.num_asked == self.sampling.num_wanted


class _Queue:
    """Images being certified: fills batches with the draws they need, and takes new images when there is room."""

    def __init__(self, source: Iterator[LabelledImage], rules: DecisionRules, counter: VoteCounter, seed: int) -> None:
        self._source, self._rules, self._counter, self._seed = source, rules, counter, seed
        self._in_progress: dict[int, _InProgress] = {}
        self._free = deque(range(counter.blocks_per_batch))

    def batches(self) -> Iterator[list[Draws]]:
        """Batches, full while there are images; ``settle`` must be called on each before the next is taken."""
        while True:
            batch: list[Draws] = []
            for item in self._in_progress.values():
                self._ask(item, batch)
            while len(batch) < self._counter.blocks_per_batch and self._free:
                image = next(self._source, None)
                if image is None:
                    break
                item = self._begin(image)
                self._ask(item, batch)
            if not batch:
                return
            yield batch

    def settle(self, batch: Sequence[Draws]) -> Iterator[tuple[LabelledImage, Certificate]]:
        """Decide on the images of a batch that have all the votes they need."""
        slots = dict.fromkeys(draws.slot for draws in batch)
        ready = [slot for slot in slots if self._in_progress[slot].has_all_votes]
        if not ready:
            return
        for slot, counts in zip(ready, self._votes(ready), strict=True):
            item = self._in_progress[slot]
            stage = item.sampling.stage
            item.sampling.take(counts)
            if item.sampling.certificate is not None:
                del self._in_progress[slot]
                self._free.append(slot)
                yield item.image, item.sampling.certificate
            elif item.sampling.stage != stage:
                item.num_asked = 0
                self._counter.clear([slot])

    def _votes(self, slots: Sequence[int]) -> npt.NDArray[np.int64]:
        try:
            return self._counter.votes(slots)
        except LogitsError as error:
            indices = ", ".join(str(self._in_progress[slot].image.index) for slot in slots[:_NAMED])
            more = ", ..." if len(slots) > _NAMED else ""
            raise LogitsError(f"{error} (among the images {indices}{more})") from error

    def _begin(self, image: LabelledImage) -> _InProgress:
        item = _InProgress(image, Sampling(self._rules, image.label), self._free.popleft())
        self._counter.assign(item.slot, image.image_CHW)
        self._in_progress[item.slot] = item
        return item

    def _ask(self, item: _InProgress, batch: list[Draws]) -> None:
        """Add the image's draws to the batch, as far as there is room."""
        stream = NoiseStream(seed=self._seed, index=item.image.index, stage=item.sampling.stage)
        room = self._counter.blocks_per_batch - len(batch)
        draws = draws_between(item.slot, stream, item.num_asked, item.sampling.num_wanted)
        wanted = list(itertools.islice(draws, room))
        item.num_asked += sum(draws.num_rows for draws in wanted)
        batch += wanted
