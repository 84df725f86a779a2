"""Votes of a base classifier under noise, for rows of several images in one batch.

On a CPU the host draws the noise, and each thread runs the network on small pieces. A GPU runs it on
whole batches, and draws the noise too where its distribution allows.

Shapes: B rows of a batch, S slots (images in progress), C H W image, K classes.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smoothing.device_noise import device_noise
from smoothing.distributions import GaussianNoise, NoiseDistribution
from smoothing.noise import BLOCK_ROWS, NoiseStream
from smoothing.transfer import Pace, to_device

BaseClassifier = Callable[[Tensor], Tensor]
"""Maps inputs_BCHW, pixels about [0, 1], to logits_BK."""

T = TypeVar("T")
R = TypeVar("R")

_CPU_PIXELS = 65_536  # values per piece: its activations should stay in a core's cache
_MIN_CPU_ROWS = 4
_MAX_AHEAD = 3  # batches submitted to a GPU: it works while the host draws the next batch's noise


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Rows of one noise block of one image to count."""

    slot: int  # holds the image's center and votes
    stream: NoiseStream  # of the noise
    block_nr: int  # block of the stream
    num_rows: int  # how many of the block's first rows to count


class LogitsError(ValueError):
    """A base classifier returned invalid logits: not finite, or not one per class."""


class VoteCounter:
    """Counts votes on the device; nothing is copied back until an image's votes are requested.

    Guarantee:
        Votes are independent draws of argmax f(x + noise). On a CPU the network always receives the
        same pieces, each of one image and run by one thread, so that votes depend only on image and
        stream. A GPU receives whole batches of one shape, and a vote whose two best logits agree to
        within rounding may change with its place in the batch. If a GPU draws the noise
        (``smoothing.device_noise``), the network's inputs are the same on both, bit for bit.
    """

    def __init__(
        self,
        base_classifier: BaseClassifier,
        distribution: NoiseDistribution,
        *,
        num_classes: int,
        image_shape: tuple[int, ...],
        batch_size: int,
        device: torch.device,
    ) -> None:
        """Prepare to count.

        Args:
            base_classifier: In evaluation mode; a row's logits may not depend on the other rows.
            num_classes: K; logits must have as many columns.
            image_shape: (C, H, W).
            batch_size: Rows per batch on the device, rounded down to a multiple of BLOCK_ROWS (but not
                to 0).
            device: The classifier's device. On a CPU as many pieces run at a time as torch has threads.
        """
        self.blocks_per_batch = max(1, batch_size // BLOCK_ROWS)
        self._classifier, self._distribution, self._device = base_classifier, distribution, device
        self._num_classes, self._image_shape = num_classes, image_shape
        num_slots = self.blocks_per_batch + 1  # the last one belongs to no image: it fills incomplete batches
        self._centers_SCHW = torch.zeros((num_slots, *image_shape), device=device)
        # The column behind the classes counts the rows whose logits are not finite: they vote for nothing.
        self._counts_SK = torch.zeros((num_slots, num_classes + 1), dtype=torch.int64, device=device)
        self._pace = Pace(device, _MAX_AHEAD)
        self._device_noise = device_noise(distribution, device)
        self._num_threads, self._is_warm = torch.get_num_threads(), False
        # Has no threads before it has work. For a GPU they only draw noise.
        self._pool = ThreadPoolExecutor(
            self._num_threads if device.type == "cpu" else None, initializer=torch.set_num_threads, initargs=(1,)
        )

    def assign(self, slot: int, image_CHW: Tensor) -> None:
        """Assign a slot to an image, pixels in [0, 1], float32, and set its votes to 0; may raise OffGridError."""
        center = self._distribution.center(image_CHW.detach().cpu().numpy())
        self._centers_SCHW[slot] = self._sent(torch.from_numpy(center))
        self.clear(slot)

    def clear(self, slot: int) -> None:
        """Set the votes of a slot to 0."""
        self._counts_SK[slot] = 0

    def votes(self, slots: Sequence[int]) -> npt.NDArray[np.int64]:
        """The votes of some slots, int64, shape (len(slots), K): one copy from the device.

        Raises LogitsError if some of their logits are not finite.
        """
        counts = self._counts_SK[self._sent(torch.tensor(slots))].cpu().numpy()
        if num_broken := int(counts[:, -1].sum()):
            raise LogitsError(
                f"the classifier's logits are not finite for {num_broken} of {int(counts.sum())} noisy images"
            )
        return counts[:, :-1]

    def count(self, batches: Iterable[Sequence[Draws]]) -> Iterator[Sequence[Draws]]:
        """Count batches of at most ``blocks_per_batch`` draws each, yielding each once it is submitted."""
        for batch in batches:
            with torch.inference_mode():  # not around the yield: the caller must not inherit it
                self._pace.await_room()
                votes_B = self.row_votes(batch)
                self._add(batch, votes_B)
                self._pace.mark()
            yield batch

    @torch.inference_mode()
    def row_votes(self, batch: Sequence[Draws]) -> Tensor:
        """The votes of a batch's rows, int64, shape (blocks_per_batch * BLOCK_ROWS,), on the device; K means no vote.

        Of the BLOCK_ROWS votes of each draws, only the first ``num_rows`` are meaningful.
        """
        return self._votes_in_pieces(batch) if self._device.type == "cpu" else self._votes_at_once(batch)

    def _add(self, batch: Sequence[Draws], votes_B: Tensor) -> None:
        slots_B = self._slots(batch)
        num_rows = [draws.num_rows for draws in batch] + [0] * (len(slots_B) // BLOCK_ROWS - len(batch))
        counted_B = self._sent((torch.arange(BLOCK_ROWS) < torch.tensor(num_rows)[:, None]).flatten())
        # Unlike bincount, this does not make the host wait for the device.
        places_B = slots_B * (self._num_classes + 1) + votes_B
        self._counts_SK.view(-1).scatter_add_(0, places_B, counted_B.to(torch.int64))

    def _votes_of(self, inputs_BCHW: Tensor) -> Tensor:
        """The class that each row votes for; K if its logits are not finite, since argmax returns a class for nan."""
        logits_BK = self._classifier(inputs_BCHW)
        if logits_BK.shape != (len(inputs_BCHW), self._num_classes):
            raise LogitsError(
                f"the classifier gave logits of shape {tuple(logits_BK.shape)} for {len(inputs_BCHW)} images of "
                f"{self._num_classes} classes"
            )
        return torch.where(logits_BK.isfinite().all(dim=1), logits_BK.argmax(dim=1), self._num_classes)

    def _votes_in_pieces(self, batch: Sequence[Draws]) -> Tensor:
        """Votes of several blocks at a time, one per thread; each thread runs whole pieces."""
        votes_B = torch.zeros(self.blocks_per_batch * BLOCK_ROWS, dtype=torch.int64)
        size = cpu_rows(self._image_shape)
        for first in range(0, len(batch), self._num_threads):
            some = batch[first : first + self._num_threads]
            # CPU kernels choose their blocking, and so their rounding, by the shape of their input and by
            # their threads. Pieces of fixed shape make votes reproducible, and stay in the cache.
            pieces = [
                (votes_B[(first + nr) * BLOCK_ROWS + row :], inputs_BCHW[row : row + size])
                for nr, (draws, inputs_BCHW) in enumerate(zip(some, self._map(self._inputs, some), strict=True))
                for row in range(0, draws.num_rows, size)
            ]
            num_first = 0 if self._is_warm else 1  # what compiles at the first call shall do so once
            self._is_warm = True
            self._map(self._vote, pieces[:num_first])
            self._map(self._vote, pieces[num_first:])
        return votes_B

    @torch.inference_mode()  # which each thread has for itself
    def _inputs(self, draws: Draws) -> Tensor:
        noise_BCHW = torch.from_numpy(self._block(draws))
        return self._distribution.inputs(self._centers_SCHW[draws.slot], noise_BCHW)

    @torch.inference_mode()
    def _vote(self, piece: tuple[Tensor, Tensor]) -> None:
        votes_B, inputs_BCHW = piece
        votes_B[: len(inputs_BCHW)] = self._votes_of(inputs_BCHW)

    def _map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """The results of a function, computed on several threads if possible; torch operations use one thread each."""
        return list(map(function, items) if self._num_threads == 1 else self._pool.map(function, items))

    def _votes_at_once(self, batch: Sequence[Draws]) -> Tensor:
        slots_B = self._slots(batch)
        if self._device_noise is not None:
            names = np.zeros((self.blocks_per_batch, BLOCK_ROWS, 4), dtype=np.int64)
            for place, draws in enumerate(batch):
                names[place] = draws.stream.row_names(draws.block_nr)
            names_B4 = self._sent(torch.from_numpy(names).flatten(0, 1))
            return self._votes_of(self._device_noise(self._centers_SCHW, slots_B, names_B4))
        noise_BCHW = self._blocks(batch)
        if self._pace.starves():
            logging.warning(
                "the GPU waits for the noise that this process's CPUs draw: use certify.noise=exact_grid, which the "
                "GPU draws itself, or more CPUs per process (cluster.certify.cpus)"
            )
        inputs_BCHW = self._distribution.inputs(self._centers_SCHW[slots_B], self._sent(noise_BCHW))
        return self._votes_of(inputs_BCHW.contiguous(memory_format=torch.channels_last))

    def _blocks(self, batch: Sequence[Draws]) -> Tensor:
        """The noise of a whole batch on the host; zeros where there are no draws."""
        shape = (self.blocks_per_batch, BLOCK_ROWS, *self._image_shape)
        noise = torch.zeros(shape, pin_memory=self._device.type == "cuda")
        blocks = noise.numpy()

        def draw(block_nr: int) -> None:
            blocks[block_nr] = self._block(batch[block_nr])

        list(self._pool.map(draw, range(len(batch))))  # numpy releases the interpreter's lock while drawing
        return noise.flatten(0, 1)

    def _block(self, draws: Draws) -> npt.NDArray[Any]:
        return self._distribution.block(draws.stream, draws.block_nr, self._image_shape)

    def _slots(self, batch: Sequence[Draws]) -> Tensor:
        """The slot of each row of a whole batch; rows without draws have the slot of no image."""
        slots = [draws.slot for draws in batch]
        slots += [self.blocks_per_batch] * (self.blocks_per_batch - len(batch))
        return self._sent(torch.tensor(slots).repeat_interleave(BLOCK_ROWS))

    def _sent(self, values: Tensor) -> Tensor:
        return to_device(values, self._device)


def call_shape(image_shape: tuple[int, ...], batch_size: int, device: torch.device) -> tuple[int, ...]:
    """The shape of what a ``VoteCounter`` gives the network in one call."""
    rows = cpu_rows(image_shape) if device.type == "cpu" else max(1, batch_size // BLOCK_ROWS) * BLOCK_ROWS
    return (rows, *image_shape)


def cpu_rows(image_shape: tuple[int, ...]) -> int:
    """Rows per piece on a CPU: a divisor of BLOCK_ROWS that depends only on the size of the image."""
    most = max(_MIN_CPU_ROWS, _CPU_PIXELS // int(np.prod(image_shape)))
    return max(rows for rows in range(1, BLOCK_ROWS + 1) if BLOCK_ROWS % rows == 0 and rows <= most)


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
    """Votes of the base classifier on ``num_samples`` copies of an image with Gaussian noise.

    Args:
        base_classifier: In evaluation mode; a row's logits may not depend on the other rows.
        image_CHW: Pixels in [0, 1], float32, on the classifier's device.
        sigma: Standard deviation of the noise, > 0, in pixels of [0, 1].
        num_samples: Draws n >= 1.
        num_classes: K; logits must have as many columns.
        stream: Stream of the noise; its first n vectors are used.
        batch_size: Rows per batch on the device; see ``VoteCounter``.

    Returns:
        Votes per class, int64, shape (K,), summing to ``num_samples``.

    Raises:
        LogitsError: Logits are not finite, or not one for each class.
        ValueError: ``num_samples`` or ``batch_size`` is below 1.

    Source:
        Cohen et al. 2019, SampleUnderNoise.
    """
    if num_samples < 1 or batch_size < 1:
        raise ValueError(f"need at least one sample and row, got n={num_samples}, batch_size={batch_size}")
    counter = VoteCounter(
        base_classifier,
        GaussianNoise(sigma),
        num_classes=num_classes,
        image_shape=tuple(image_CHW.shape),
        batch_size=batch_size,
        device=image_CHW.device,
    )
    counter.assign(0, image_CHW)
    draws = list(draws_between(0, stream, 0, num_samples))
    size = counter.blocks_per_batch
    for _ in counter.count(draws[first : first + size] for first in range(0, len(draws), size)):
        pass
    counts: npt.NDArray[np.int64] = counter.votes([0])[0]
    return counts


def draws_between(slot: int, stream: NoiseStream, first: int, stop: int) -> Iterator[Draws]:
    """The draws from number ``first`` (a multiple of BLOCK_ROWS) to below ``stop``, block by block."""
    assert first % BLOCK_ROWS == 0, "a block is never used twice"
    for start in range(first, stop, BLOCK_ROWS):
        num_rows = min(BLOCK_ROWS, stop - start)
        yield Draws(slot=slot, stream=stream, block_nr=start // BLOCK_ROWS, num_rows=num_rows)
