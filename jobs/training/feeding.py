"""Training images in random order, varied at random, on the device, as one process's share.

Everything random comes from a generator that all processes of a training hold in the same state, so
that the global batch is the same for any number of processes.

Shapes: N images of the dataset, B images of this process's share, C H W image.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jobs.datasets import Augmentation, Images
from jobs.datasets._tree import TreeImages
from jobs.training.distributed import Group
from smoothing.transfer import to_device

PADDING = 4
"""Black pixels around an image before a random crop, as in the paper (and everyone's CIFAR-10)."""

_AREA, _ASPECT, _CROP_TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10  # as torchvision's RandomResizedCrop
_BATCHES_AHEAD = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageBatch:
    """This process's share of a global batch, on the device."""

    num_images: int  # of the global batch
    inputs_BCHW: Tensor  # the share's images, in [0, 1]
    labels_B: Tensor  # their classes
    indices_B: Tensor  # which images of the split they are

    def part(self, start: int, size: int, *, num_processes: int) -> "ImageBatch":
        """Some of its images; each process has ``size`` of the global part."""
        rows = slice(start, start + size)
        return ImageBatch(
            num_images=size * num_processes,
            inputs_BCHW=self.inputs_BCHW[rows],
            labels_B=self.labels_B[rows],
            indices_B=self.indices_B[rows],
        )


def epoch_batches(loader: "Loader", batch_size: int, generator: torch.Generator, group: Group) -> Iterator[ImageBatch]:
    """All images once, in random order, in global batches of ``batch_size`` of which this process has its share.

    The last batch may be smaller, and is left out if it has fewer images than there are processes. The
    generator is on the device, in the same state in all processes.
    """
    order_N = torch.randperm(len(loader.labels_N), generator=generator, device=generator.device)
    batches = [batch for batch in torch.split(order_N, batch_size) if len(batch) >= group.num_processes]
    for batch_N, levels_BCHW in zip(batches, loader.epoch(batches, generator, group), strict=True):
        indices_B = group.share(batch_N)
        yield ImageBatch(
            num_images=len(batch_N),
            inputs_BCHW=levels_BCHW.float() / loader.num_levels,
            labels_B=loader.labels_N[indices_B],
            indices_B=indices_B,
        )


def make_loader(images: Images, augmentation: Augmentation, device: torch.device) -> "Loader":
    """The loader for a dataset's augmentation: images that are varied while decoding are not kept in memory.

    Raises DataError naming images that are broken.
    """
    if augmentation == "resized_crop_flip":
        return DiskLoader(cast(TreeImages, images), device)
    return MemoryLoader(images, augmentation, device)


class MemoryLoader:
    """Keeps a dataset on the device as uint8 and augments it there."""

    def __init__(self, images: Images, augmentation: Augmentation, device: torch.device) -> None:
        self._levels_NCHW = torch.from_numpy(images.pixels()).to(device)
        self.labels_N = torch.from_numpy(images.labels).to(device)
        self.num_levels, self._augmentation = images.num_levels, augmentation

    def epoch(self, batches: Sequence[Tensor], generator: torch.Generator, group: Group) -> Iterator[Tensor]:
        """Levels_BCHW of this process's share of each global batch of indices, uint8, on the device."""
        for indices_N in batches:
            levels_BCHW = self._levels_NCHW[group.share(indices_N)]
            if self._augmentation == "crop_flip":
                # Drawn for the global batch, so that they do not depend on how it is shared.
                shape, device = (len(indices_N),), generator.device
                tops = torch.randint(2 * PADDING + 1, shape, generator=generator, device=device)
                lefts = torch.randint(2 * PADDING + 1, shape, generator=generator, device=device)
                flips = torch.rand(shape, generator=generator, device=device) < 0.5
                levels_BCHW = crop_and_flip(levels_BCHW, *map(group.share, (tops, lefts, flips)))
            yield levels_BCHW


def crop_and_flip(images_BCHW: Tensor, tops_B: Tensor, lefts_B: Tensor, flips_B: Tensor) -> Tensor:
    """Each image padded with zeros by PADDING on all sides, cut at its own position, and mirrored if its flip is true.

    ``tops_B`` and ``lefts_B`` are the first row and column of each cut in the padded image, 0 to 2 * PADDING.
    """
    num_images, num_channels, height, width = images_BCHW.shape
    padded_BCHW = torch.nn.functional.pad(images_BCHW, (PADDING,) * 4)
    rows_BH = tops_B[:, None] + torch.arange(height, device=tops_B.device)
    columns_W = torch.arange(width, device=tops_B.device)
    columns_BW = lefts_B[:, None] + torch.where(flips_B[:, None], columns_W.flip(0), columns_W)
    return padded_BCHW[
        torch.arange(num_images, device=tops_B.device)[:, None, None, None],
        torch.arange(num_channels, device=tops_B.device)[None, :, None, None],
        rows_BH[:, None, :, None],
        columns_BW[:, None, None, :],
    ]


class DiskLoader:
    """Decodes images in threads, several batches ahead of their use."""

    def __init__(self, images: TreeImages, device: torch.device, num_threads: int | None = None) -> None:
        self._images, self._device, self.num_levels = images, device, images.num_levels
        self.labels_N = torch.from_numpy(images.labels).to(device)
        self._pool = ThreadPoolExecutor(max_workers=num_threads, thread_name_prefix="decode")

    def epoch(self, batches: Sequence[Tensor], generator: torch.Generator, group: Group) -> Iterator[Tensor]:
        # Each image has its own randomness, from the epoch's seed and its index.
        decode = partial(random_resized, self._images, seed=generator.initial_seed())
        # All indices are read now: to read them from the device later would wait for its work.
        waiting = deque(group.share(batch).tolist() for batch in batches)
        decoding: deque[list[Future[npt.NDArray[np.uint8]]]] = deque()
        while waiting or decoding:
            while waiting and len(decoding) < _BATCHES_AHEAD:
                decoding.append([self._pool.submit(decode, index) for index in waiting.popleft()])
            levels_BCHW = np.stack([future.result() for future in decoding.popleft()])
            yield to_device(torch.from_numpy(levels_BCHW), self._device)


Loader = MemoryLoader | DiskLoader
"""Yields the images of an epoch."""


def random_resized(images: TreeImages, index: int, seed: int) -> npt.NDArray[np.uint8]:
    """A random part of an image, resized to the dataset's size, mirrored at random; a function of its arguments.

    uint8, shape (C, H, W). Raises DataError naming a file that cannot be decoded.
    """
    from PIL.Image import Resampling, Transpose

    random = np.random.default_rng((seed, index))
    image = images.decoded(index)
    left, top, width, height = _random_box(random, image.width, image.height)
    _, out_height, out_width = images.image_shape
    box = (left, top, left + width, top + height)
    resized = image.crop(box).resize((out_width, out_height), Resampling.BILINEAR)
    if random.random() < 0.5:
        resized = resized.transpose(Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(resized).transpose(2, 0, 1)


def _random_box(random: np.random.Generator, width: int, height: int) -> tuple[int, int, int, int]:
    """left, top, width, height of a part drawn as torchvision's RandomResizedCrop draws it."""
    for _ in range(_CROP_TRIES):
        area = width * height * random.uniform(*_AREA)
        aspect = math.exp(random.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1])))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            left = int(random.integers(0, width - box_width + 1))
            return left, int(random.integers(0, height - box_height + 1)), box_width, box_height
    # No try fitted: the largest central part of an aspect that is allowed.
    box_width = min(width, round(height * _ASPECT[1]))
    box_height = min(height, round(width / _ASPECT[0]))
    return (width - box_width) // 2, (height - box_height) // 2, box_width, box_height
