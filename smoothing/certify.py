"""CERTIFY and PREDICT of Cohen et al. 2019, and CERTIFY with fewer samples."""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from smoothing.bounds import min_samples_to_certify
from smoothing.certificate import Certificate, prediction_from_counts
from smoothing.counts import BaseClassifier, Draws, LogitsError, VoteCounter, class_counts, draws_between
from smoothing.distributions import GaussianNoise, NoiseDistribution
from smoothing.noise import NoiseStream
from smoothing.radius import ABSTAIN
from smoothing.sequential import DecisionRules, Procedure, Sampling

_NAMED = 5  # images that a message names


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledImage:
    """An image to certify or to attack."""

    index: int  # in its dataset; together with the seed it determines the noise
    label: int  # true class; certification reads it only with ``Procedure.stop_wrong``
    image_CHW: Tensor  # pixels in [0, 1], float32


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


@dataclass(frozen=True, kw_only=True)
class SmoothedClassifier:
    """A base classifier smoothed by Gaussian noise.

    The base classifier maps inputs_BCHW, pixels of [0, 1] plus noise, to logits_BK. A torch module must be in
    evaluation mode; in any case a row's logits may not depend on the other rows, nor on chance.
    """

    base_classifier: BaseClassifier
    sigma: float  # standard deviation of the noise, > 0, in pixels of [0, 1]
    seed: int = 0  # the noise depends on this and on the index of the image alone
    batch_size: int = 1000  # rows per batch on the device; does not change the result on a CPU

    def certify(
        self, images: Tensor, *, n: int, n0: int = 100, alpha: float = 0.001, first_index: int = 0
    ) -> list[Certificate]:
        """The smoothed classifier's class at each image, and a radius around it.

        Args:
            images: Pixels in [0, 1], float32, shape (C, H, W) or (B, C, H, W).
            n: Draws for bounding the probability of the class, >= 1.
            n0: Separate draws for choosing the class, >= 1.
            alpha: Probability that a certificate is wrong, in (0, 1).
            first_index: Index of the first image; the others follow.

        Returns:
            One certificate per image, with all votes, so that other bounds can be computed without sampling.

        Raises:
            LogitsError: Logits are not finite, or not one for each class.
            ValueError: An argument is outside its range, or n draws can never certify anything.

        Guarantee:
            For each image, with probability at least 1 - alpha over its noise: either it abstains, or the
            smoothed classifier is constant, and equal to the prediction, within the radius.

        Source:
            Cohen et al. 2019, CERTIFY.
        """
        if n0 < 1 or n < min_samples_to_certify(alpha):
            raise ValueError(
                f"n0={n0}, n={n} draws can never certify anything at alpha={alpha}: take n0 >= 1 and "
                f"n >= {min_samples_to_certify(alpha)}"
            )
        images_BCHW = self._checked(images)
        done = certify_images(
            self.base_classifier,
            # Without stop_wrong, labels are not read.
            (LabelledImage(index=nr, label=ABSTAIN, image_CHW=one) for nr, one in enumerate(images_BCHW, first_index)),
            Procedure(n0=n0, n=n, alpha=alpha),
            GaussianNoise(self.sigma),
            num_classes=self._num_classes(images_BCHW),
            seed=self.seed,
            batch_size=self.batch_size,
        )
        return [certificate for _, certificate in sorted(done, key=lambda pair: pair[0].index)]

    def predict(self, images: Tensor, *, n: int, alpha: float = 0.001, first_index: int = 0) -> list[int]:
        """The smoothed classifier's class at each image, or ABSTAIN; arguments and errors as for ``certify``.

        Guarantee:
            Each class returned differs from the smoothed classifier's with probability at most alpha.

        Source:
            Cohen et al. 2019, PREDICT: all n draws serve one test.
        """
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must lie in (0, 1), got {alpha!r}")
        images_BCHW = self._checked(images)
        num_classes = self._num_classes(images_BCHW)
        counts = [
            class_counts(
                self.base_classifier,
                image_CHW,
                sigma=self.sigma,
                num_samples=n,
                num_classes=num_classes,
                stream=NoiseStream(seed=self.seed, index=index, stage="prediction"),
                batch_size=self.batch_size,
            )
            for index, image_CHW in enumerate(images_BCHW, first_index)
        ]
        return [prediction_from_counts(votes, alpha=alpha) for votes in counts]

    def _checked(self, images: Tensor) -> Tensor:
        """The images as images_BCHW, on the device of the classifier."""
        network, images_BCHW = self.base_classifier, images[None] if images.ndim == 3 else images
        if images_BCHW.ndim != 4 or not len(images_BCHW):
            raise ValueError(f"images must have shape (C, H, W) or (B, C, H, W), got {tuple(images.shape)}")
        if images.dtype != torch.float32 or not bool(((images >= 0) & (images <= 1)).all()):
            raise ValueError(
                "images must be float32 pixels in [0, 1]; the base classifier normalises them itself, after the noise"
            )
        if not isinstance(network, nn.Module):
            return images_BCHW
        if any(module.training for module in network.modules()):
            raise ValueError("the base classifier is in training mode, where logits depend on the batch; call eval()")
        device = next((weights.device for weights in network.parameters()), images.device)
        return images_BCHW.to(device)

    @torch.inference_mode()
    def _num_classes(self, images_BCHW: Tensor) -> int:
        return int(self.base_classifier(images_BCHW[:1]).shape[-1])


@dataclass(eq=False)
class _InProgress:
    """An image in a slot; the first ``num_asked`` draws of its current stage have been submitted."""

    image: LabelledImage
    sampling: Sampling
    slot: int
    num_asked: int = 0


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
                item = _InProgress(image, Sampling(self._rules, image.label), self._free.popleft())
                self._counter.assign(item.slot, image.image_CHW)
                self._in_progress[item.slot] = item
                self._ask(item, batch)
            if not batch:
                return
            yield batch

    def settle(self, batch: Sequence[Draws]) -> Iterator[tuple[LabelledImage, Certificate]]:
        """Decide on the images of a batch that have all the votes they need."""
        slots = dict.fromkeys(draws.slot for draws in batch)
        items = [self._in_progress[slot] for slot in slots]
        ready = [item.slot for item in items if item.num_asked == item.sampling.num_wanted]
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
                self._counter.clear(slot)

    def _votes(self, slots: Sequence[int]) -> npt.NDArray[np.int64]:
        try:
            return self._counter.votes(slots)
        except LogitsError as error:
            indices = ", ".join(str(self._in_progress[slot].image.index) for slot in slots[:_NAMED])
            more = ", ..." if len(slots) > _NAMED else ""
            raise LogitsError(f"{error} (among the images {indices}{more})") from error

    def _ask(self, item: _InProgress, batch: list[Draws]) -> None:
        """Add the image's draws to the batch, as far as there is room."""
        stream = NoiseStream(seed=self._seed, index=item.image.index, stage=item.sampling.stage)
        room = self._counter.blocks_per_batch - len(batch)
        draws = draws_between(item.slot, stream, item.num_asked, item.sampling.num_wanted)
        wanted = list(itertools.islice(draws, room))
        item.num_asked += sum(draws.num_rows for draws in wanted)
        batch += wanted
