"""Certification of one shard, resumable image by image."""

import contextlib
import functools
import itertools
import logging
from collections.abc import Iterator
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from jobs.datasets import Images
from jobs.errors import ConfigError, DataError
from jobs.files import records
from jobs.files.store import Store
from jobs.networks.checkpoint import TrainedClassifier
from jobs.networks.inference import compiled_where_it_pays, for_inference
from jobs.shards import Done, Work, labelled_image, run_shard
from jobs.specs.indices import IndexRange
from jobs.specs.units import Resources, ShardUnit
from smoothing.certify import LabelledImage, certify_images
from smoothing.counts import Draws, VoteCounter, call_shape
from smoothing.distributions import NoiseDistribution, OffGridError, noise_distribution
from smoothing.noise import BLOCK_ROWS, NoiseStream

_NUM_ROWS = 1000  # noisy images on which a precision is compared with float32: some kernels have been wrong


class Settings(TypedDict):
    """Settings for counting votes that do not depend on the network."""

    distribution: NoiseDistribution
    num_classes: int
    batch_size: int
    device: torch.device


def run(unit: ShardUnit, store: Store, resources: Resources) -> None:
    """Certify the images of a shard, or the rest of them, until its file exists.

    Raises, besides what ``run_shard`` does:
        DataError: An image does not suit the noise; names it.
        ConfigError: The device does not have the precision, or it changes too many votes; or a network of the user's
            own changed meanwhile.
    """
    run_shard(unit, store, resources, functools.partial(_prepared, unit, store, resources))


def _prepared(unit: ShardUnit, store: Store, resources: Resources, trained: TrainedClassifier, images: Images) -> Work:
    """The network as it is certified; it is compared with float32 if it has another precision."""
    spec, info = unit.run.certify, unit.train.info
    device = next(trained.classifier.buffers()).device
    settings: Settings = {
        "distribution": noise_distribution(spec.noise, spec.sigma_cert, info.num_levels),
        "num_classes": info.num_classes,
        "batch_size": resources.batch_size,
        "device": device,
    }

    votes = functools.partial(_votes, unit=unit, images=images, settings=settings)
    is_rounded = spec.precision != "float32"
    in_float32 = votes(for_inference(trained.classifier, "float32", device)) if is_rounded else None
    compile = False if resources.compile == "auto" else resources.compile
    network = for_inference(trained.classifier, spec.precision, device, compile=compile)
    if resources.compile == "auto":
        shape = call_shape(info.image_shape, resources.batch_size, device)
        num_rows = len(unit.indices) * (spec.n0 + spec.n)
        network, compile = compiled_where_it_pays(network, torch.zeros(shape, device=device), num_rows)
    notes = {"compile": str(compile).lower()}
    if in_float32 is not None:
        least = resources.min_equal_votes
        share = _equal_votes(in_float32, votes(network), info.num_classes, spec.precision, least)
        notes["equal_votes_float32"] = f"{share:.4f}"

    def clean(part: IndexRange) -> dict[str, str]:
        plain = for_inference(trained.classifier, spec.precision, device)
        rows, *_ = call_shape(info.image_shape, resources.batch_size, device)
        return {
            records.CLEAN_CORRECT: str(num_correct(plain, images, part, rows, device)),
            records.CLEAN_SEEN: str(len(part)),
        }

    def certified(todo: Iterator[LabelledImage]) -> Iterator[Done]:
        before = votes(network) if unit.train.network_plugins else None
        with _off_grid_named(unit):
            for image, certificate in certify_images(network, todo, spec, seed=spec.seed, **settings):
                yield image, records.image_columns(image.label, certificate)
        if before is not None and not torch.equal(before, votes(network)):
            store.partial_path(unit.run.place, unit.indices).unlink(missing_ok=True)
            raise ConfigError(
                f"{unit.train.architecture}: the same {_NUM_ROWS} noisy images got different votes before and after "
                "the shard: the network keeps state between calls, or depends on time or chance, and cannot be "
                "certified. Correct it and raise its VERSION"
            )

    return Work(do=certified, notes=notes, about=clean)


def _votes(network: nn.Module, unit: ShardUnit, images: Images, settings: Settings) -> Tensor:
    """On the first blocks of the selection of the run's first images: the same ones for all of its shards."""
    counter, found = VoteCounter(network, image_shape=unit.train.info.image_shape, **settings), []
    first = [*itertools.islice(unit.run.indices, _NUM_ROWS // BLOCK_ROWS)]
    for number in range(_NUM_ROWS // BLOCK_ROWS):
        image = labelled_image(images, first[number % len(first)])
        stream = NoiseStream(seed=unit.run.certify.seed, index=image.index, stage="selection")
        with _off_grid_named(unit):
            counter.assign(0, image.image_CHW)
        draws = Draws(slot=0, stream=stream, block_nr=number // len(first), num_rows=BLOCK_ROWS)
        found.append(counter.row_votes([draws])[:BLOCK_ROWS].cpu())
    return torch.cat(found)


def _equal_votes(votes_B: Tensor, others_B: Tensor, num_classes: int, precision: str, least: float) -> float:
    """The share of equal votes: warns of a low one, and raises ConfigError where it is below ``least``."""
    is_vote_B = (votes_B < num_classes) & (others_B < num_classes)  # a row without a vote ends the certification anyway
    share = float((votes_B == others_B)[is_vote_B].double().mean()) if is_vote_B.any() else 1.0
    found = f"{precision} and float32 give the same vote on {share:.1%} of {_NUM_ROWS} noisy images"
    if share < least:
        raise ConfigError(
            f"certify.precision: {found}, less than cluster.min_equal_votes={least}. Certificates would be "
            "valid, but for another and probably worse model. Use certify.precision=float32 or another version "
            "of torch; cluster.min_equal_votes=0 certifies the model as it is"
        )
    if share < 0.99:
        logging.warning("%s: certificates are valid, but for a slightly different model", found)
    else:
        logging.info("%s", found)
    return share


@torch.inference_mode()
def num_correct(network: nn.Module, images: Images, part: IndexRange, rows: int, device: torch.device) -> int:
    """How many images without noise a network classifies correctly, ``rows`` of them at a time."""
    indices, correct = list(part), 0
    for start in range(0, len(indices), rows):
        some = indices[start : start + rows]
        inputs_BCHW = torch.stack([labelled_image(images, index).image_CHW for index in some]).to(device)
        labels = [int(images.labels[index]) for index in some]
        correct += int(np.count_nonzero(network(inputs_BCHW).argmax(dim=1).cpu().numpy() == labels))
    return correct


@contextlib.contextmanager
def _off_grid_named(unit: ShardUnit) -> Iterator[None]:
    try:
        yield
    except OffGridError as error:
        raise DataError(f"{unit.train.dataset}, {unit.run.certify.split} split: {error}") from error
