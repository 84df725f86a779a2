from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from jobs.datasets import ArrayImages, imagenet, load_images
from jobs.datasets._tree import TreeImages
from jobs.errors import DataError
from jobs.training.distributed import Group
from jobs.training.feeding import (
    PADDING,
    DiskLoader,
    ImageBatch,
    Loader,
    MemoryLoader,
    _random_box,
    crop_and_flip,
    epoch_batches,
    random_resized,
)
from tests.trees import inputs_of, make_tree, of_any_size
from tests.waiting import META, NoBlockingCopies

CPU = torch.device("cpu")


def test_each_image_is_cut_from_its_own_place_and_mirrored() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (40, 3, 6, 5), dtype=torch.uint8)
    tops, lefts = torch.randint(0, 9, (40,)), torch.randint(0, 9, (40,))
    flips = torch.rand(40) < 0.5
    found = crop_and_flip(images, tops, lefts, flips)
    for index in range(40):
        padded = torch.zeros(3, 6 + 2 * PADDING, 5 + 2 * PADDING, dtype=torch.uint8)
        padded[:, PADDING : PADDING + 6, PADDING : PADDING + 5] = images[index]
        cut = padded[:, tops[index] : tops[index] + 6, lefts[index] : lefts[index] + 5]
        assert torch.equal(found[index], cut.flip(2) if flips[index] else cut)


def test_every_offset_of_a_crop_is_drawn_and_half_of_the_images_are_mirrored() -> None:
    """A picture whose pixels are all different tells where it was cut, and whether it was mirrored."""
    num_images, size = 2000, 10
    ramp = np.arange(1, size * size + 1, dtype=np.uint8).reshape(1, 1, size, size)
    images = ArrayImages(levels=np.repeat(ramp, num_images, axis=0), labels=np.arange(num_images))
    epoch = _epoch(MemoryLoader(images, "crop_flip", CPU), Group())
    found_BHW = (torch.cat([batch.inputs_BCHW for batch in epoch])[:, 0] * 255).round().int()
    row, column = found_BHW[:, size // 2, size // 2], found_BHW[:, size // 2, size // 2 - 1]
    mirrored = row < column
    tops = (row - 1) // size - size // 2 + PADDING
    # The column in the image of the pixel at size // 2 of the cut, seen from the left or mirrored.
    lefts = (row - 1) % size - torch.where(mirrored, size - 1 - size // 2, size // 2) + PADDING
    for offsets in (tops, lefts):
        counts = torch.bincount(offsets, minlength=2 * PADDING + 1)
        assert len(counts) == 2 * PADDING + 1
        assert counts.min() > num_images / (2 * PADDING + 1) / 2
    assert 0.45 < mirrored.float().mean() < 0.55  # nine standard deviations of 2,000 coins are 0.1


def _images(num_images: int = 23) -> ArrayImages:
    levels = np.random.default_rng(0).integers(0, 256, size=(num_images, 3, 8, 8), dtype=np.uint8)
    return ArrayImages(levels=levels, labels=np.arange(num_images))


def _epoch(loader: Loader, group: Group, seed: int = 5) -> list[ImageBatch]:
    return list(epoch_batches(loader, 10, torch.Generator().manual_seed(seed), group))


def _assert_make_up(batch: ImageBatch, shares: Sequence[ImageBatch]) -> None:
    for name in ("inputs_BCHW", "labels_B", "indices_B"):
        assert torch.equal(torch.cat([getattr(share, name) for share in shares]), getattr(batch, name))


def test_an_epoch_has_every_image_once_in_another_order_each_time() -> None:
    loader = MemoryLoader(_images(), "crop_flip", CPU)
    epochs = [_epoch(loader, Group(), seed) for seed in (1, 2)]
    orders = [torch.cat([batch.labels_B for batch in epoch]).tolist() for epoch in epochs]
    assert [batch.num_images for batch in epochs[0]] == [10, 10, 3]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(23))
    assert orders[0] != orders[1]


def test_without_augmentation_images_are_themselves() -> None:
    images = _images()
    for batch in _epoch(MemoryLoader(images, "none", CPU), Group()):
        assert torch.equal(batch.inputs_BCHW, torch.from_numpy(inputs_of(images))[batch.indices_B])


@pytest.mark.parametrize("num_processes", [2, 3])
def test_shares_make_up_the_batch_of_one_process(num_processes: int) -> None:
    loader = MemoryLoader(_images(), "crop_flip", CPU)
    whole = _epoch(loader, Group())
    parts = [_epoch(loader, Group(rank=rank, num_processes=num_processes)) for rank in range(num_processes)]
    for batch, shares in zip(whole, zip(*parts, strict=True), strict=True):
        assert all(share.num_images == batch.num_images for share in shares)
        _assert_make_up(batch, shares)


def test_a_rest_with_fewer_images_than_processes_is_left_out() -> None:
    loader = MemoryLoader(_images(21), "none", CPU)
    assert [batch.num_images for batch in _epoch(loader, Group(rank=1, num_processes=2))] == [10, 10]
    assert Group(rank=0, num_processes=4).sizes(10) == [3, 3, 2, 2]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> TreeImages:
    folder = tmp_path_factory.mktemp("photographs")
    make_tree(folder, per_class={"train": 4, "val": 1}, size=(60, 50), classes=("a", "b", "c"), suffix=".jpg")
    tree = of_any_size(imagenet.TREE, num_classes=3, image_shape=(3, 32, 32))
    return tree.open_split("train", folder)


def test_images_from_disk_are_each_a_function_of_seed_and_index(photographs: TreeImages) -> None:
    epochs = []
    for num_threads in (1, 4):
        loader = DiskLoader(photographs, CPU, num_threads=num_threads)
        epochs.append(_epoch(loader, Group()))
        seen = torch.cat([batch.labels_B for batch in epochs[-1]])
        assert torch.bincount(seen).tolist() == [4, 4, 4]
    for ours, theirs in zip(*epochs, strict=True):
        assert torch.equal(ours.inputs_BCHW, theirs.inputs_BCHW)
        assert torch.equal(ours.labels_B, theirs.labels_B)
    assert not np.array_equal(random_resized(photographs, 0, 1), random_resized(photographs, 0, 2))


def test_images_from_disk_are_mirrored_at_random(tmp_path: Path) -> None:
    """Brightness grows from left to right in the file, and so in every part of it: unless it is mirrored."""
    make_tree(tmp_path, per_class={"train": 1, "val": 1}, size=(60, 50), classes=("a",))
    ramp = np.broadcast_to(np.linspace(0, 255, 60).astype(np.uint8)[None, :, None], (50, 60, 3))
    Image.fromarray(np.ascontiguousarray(ramp)).save(next(tmp_path.glob("train/a/*")))
    tree = of_any_size(imagenet.TREE, num_classes=1, image_shape=(3, 32, 32))
    images = tree.open_split("train", tmp_path)
    found = [random_resized(images, 0, seed).astype(int)[0] for seed in range(100)]
    mirrored = sum(int(part[:, 0].sum() > part[:, -1].sum()) for part in found)
    assert 30 <= mirrored <= 70  # four standard deviations


def test_shares_from_disk_make_up_the_batch_of_one_process(photographs: TreeImages) -> None:
    whole = _epoch(DiskLoader(photographs, CPU), Group())
    parts = [_epoch(DiskLoader(photographs, CPU), Group(rank=rank, num_processes=2)) for rank in range(2)]
    for batch, shares in zip(whole, zip(*parts, strict=True), strict=True):
        _assert_make_up(batch, shares)


def test_batches_from_disk_never_wait_for_the_device(photographs: TreeImages) -> None:
    batches = epoch_batches(DiskLoader(photographs, META), 5, torch.Generator().manual_seed(1), Group())
    with NoBlockingCopies():  # type: ignore[no-untyped-call]
        devices = [(batch.inputs_BCHW.device, batch.labels_B.device) for batch in batches]
    assert devices == [(META, META)] * 3


def _statistics(boxes: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    left, top, width, height = boxes.T
    return [width * height, np.log(width / height), left, top]


def test_random_parts_are_drawn_as_torchvision_draws_them() -> None:
    """Means of area, aspect and place over 4,000 draws, within five standard errors of both samples."""
    width, height, num_draws = 500, 375, 4000
    random = np.random.default_rng(0)
    ours = np.array([_random_box(random, width, height) for _ in range(num_draws)], dtype=float)
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    boxes = [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(num_draws)]
    theirs = np.array([(left, top, box_width, box_height) for top, left, box_height, box_width in boxes], dtype=float)
    assert (ours[:, 0] + ours[:, 2] <= width).all()
    assert (ours[:, 1] + ours[:, 3] <= height).all()
    for a, b in zip(_statistics(ours), _statistics(theirs), strict=True):
        assert abs(a.mean() - b.mean()) < 5 * np.sqrt((a.var() + b.var()) / num_draws)
        assert a.std() == pytest.approx(b.std(), rel=0.1)


def test_extreme_shapes_give_the_largest_central_part() -> None:
    random = np.random.default_rng(0)
    assert _random_box(random, 1000, 3) == (498, 0, 4, 3)
    assert _random_box(random, 3, 1000) == (0, 498, 3, 4)


def test_a_file_that_vanishes_during_training_is_named(photographs: TreeImages, tmp_path: Path) -> None:
    gone = replace(photographs, root=tmp_path)
    with pytest.raises(DataError, match=r"\.jpg: no longer exists"):
        _epoch(DiskLoader(gone, CPU), Group())


def test_digits_keep_their_seventeen_levels() -> None:
    images = load_images("digits", "test")
    assert images.pixels().max() == images.num_levels == 16
    assert images.image(3).max() <= 1
