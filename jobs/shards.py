"""Runs one shard and saves it image by image, so that it can be interrupted and resumed at any moment."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from jobs.atomic import remove_stale_temporaries, set_aside
from jobs.datasets import Images, differ, load_images
from jobs.errors import CheckpointError, RecordError
from jobs.files import records
from jobs.files.code import provenance
from jobs.files.layouts import Layout, layout_of
from jobs.files.store import Store
from jobs.networks.checkpoint import TrainedClassifier, load_classifier
from jobs.plugins import loading
from jobs.processes import interrupt
from jobs.processes.device import device_name, set_up_device
from jobs.specs.indices import IndexRange, partition
from jobs.specs.keys import canonical_json
from jobs.specs.units import Resources, ShardUnit
from smoothing.certify import LabelledImage
from smoothing.counts import LogitsError

Row = Mapping[str, Any]
Done = tuple[LabelledImage, dict[str, Any]]
"""An image and its columns, except index, label and elapsed_s."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    # Does images, taking them as it can and handing each back as soon as it is done, in any order
    do: Callable[[Iterator[LabelledImage]], Iterator[Done]]
    notes: Mapping[str, str] = field(default_factory=dict)  # added to the metadata of the files
    # What to add to the metadata of a finished file with these images
    about: Callable[[IndexRange], Mapping[str, str]] = lambda _: {}


def run_shard(
    unit: ShardUnit, store: Store, resources: Resources, prepare: Callable[[TrainedClassifier, Images], Work]
) -> None:
    """Do the images of a shard, or the rest of them, until finished files hold them all.

    Images that other processes finish meanwhile are left to them, however their shards are cut. ``prepare`` gets the
    model and all images of its split.

    Raises:
        CheckpointError: There is no sound checkpoint of the run. A damaged or foreign one is set
            aside, so that the next launch retrains it. Or its logits are not finite.
    """
    missing = store.unfinished(unit.run.place, unit.indices)
    if not missing:
        logging.info("already there: %s", unit.name)
        return
    remove_stale_temporaries(store.shards_dir(unit.run.place))
    device, layout = set_up_device(resources), layout_of(unit.run)
    trained = _load_or_set_aside(unit, store, device)
    images = load_images(unit.train.source, unit.run.task.split, resources.data)
    work = prepare(trained, images)
    metadata = {
        **work.notes,
        **layout.specs,
        **provenance(),
        "source": unit.stage,
        "checkpoint_sha256": trained.weights_sha256,
        "images": images.fingerprint,
        **_plugins(trained, unit),
        "device": device_name(device),
    }
    rows = _saved_rows(unit, store, layout, metadata)
    todo = [index for index in missing if index not in rows]
    began, saved_at = time.perf_counter(), time.monotonic()
    done = work.do(labelled_image(images, index) for index in todo)
    for labelled, own in _with_finite_logits(done, unit, store):
        # Images may share batches, so each gets the time since the previous one was done.
        began, elapsed_s = (now := time.perf_counter()), now - began
        own_columns = {"index": labelled.index, "label": labelled.label, **own, "elapsed_s": elapsed_s}
        rows[labelled.index] = {**layout.columns, **own_columns}
        if interrupt.was_asked() or time.monotonic() - saved_at >= resources.save_every_s:
            if not store.unfinished(unit.run.place, unit.indices):  # another process finished the shard first
                break
            _write(store.partial_path(unit.run.place, unit.indices), layout, rows, metadata)
            saved_at = time.monotonic()
            logging.info("did %d of %d images", len(rows), len(unit.indices))
            interrupt.stop_if_asked()
    # What no finished file contains yet: an image in two files would stop the aggregation.
    ours = [index for index in store.unfinished(unit.run.place, unit.indices) if index in rows]
    for part in [unit.indices] if len(ours) == len(unit.indices) else partition(ours, len(unit.indices)):
        path, own_rows = store.shard_path(unit.run.place, part), {index: rows[index] for index in part}
        _write(path, layout, own_rows, {**metadata, **work.about(part)}, replace=False)
    logging.info("did all %d images: %s", len(unit.indices), unit.name)
    store.remove_served_partials(unit.run.place)


def _with_finite_logits(done: Iterator[Done], unit: ShardUnit, store: Store) -> Iterator[Done]:
    try:
        yield from done
    except LogitsError as error:
        raise CheckpointError(
            f"{store.checkpoint_path(unit.run.train.key)}: {error}. No vote was recorded for them. Check how "
            "the model was trained; with certify.precision=float16, it may be an overflow, which bfloat16 avoids"
        ) from error


def _plugins(trained: TrainedClassifier, unit: ShardUnit) -> dict[str, str]:
    """The hashes of the plug-in files used in training and of those used now, by package."""
    train = unit.run.train
    if not train.plugins:
        return {}
    now = loading.hashes(train.plugins) if train.network_plugins else {}
    packages = sorted({*trained.plugins, *now})
    found = {name: sorted({own[name] for own in (trained.plugins, now) if name in own}) for name in packages}
    return {"plugins": canonical_json(found)}


def labelled_image(images: Images, index: int) -> LabelledImage:
    """An image of a split with its label, on the host."""
    image_CHW = torch.from_numpy(images.image(index))
    return LabelledImage(index=index, label=int(images.labels[index]), image_CHW=image_CHW)


def _load_or_set_aside(unit: ShardUnit, store: Store, device: torch.device) -> TrainedClassifier:
    path = store.checkpoint_path(unit.train.key)
    try:
        return load_classifier(path, unit.train, device)
    except CheckpointError as error:
        if not path.exists():
            raise
        moved = set_aside(path)
        raise CheckpointError(f"{error}; moved to {moved.name}: launch again to retrain this model") from error


def _saved_rows(unit: ShardUnit, store: Store, layout: Layout, metadata: Mapping[str, str]) -> dict[int, Row]:
    """Rows of this shard's images in any unfinished file of the run, by index; shards may have been cut differently."""
    rows: dict[int, Row] = {}
    for indices in store.partial_shards(unit.run.place):
        if set(indices).isdisjoint(unit.indices):
            continue
        path = store.partial_path(unit.run.place, indices)
        try:
            found = records.check_metadata(path, layout.specs)
            for name, what in (("checkpoint_sha256", "weights"), ("plugins", "plug-ins")):
                if found.get(name) != metadata.get(name):
                    raise RecordError(f"{path}: made with other {what}")
            if differ(found.get("images", ""), metadata["images"]):
                raise RecordError(f"{path}: made with other images")
            table = records.read_records(path, layout.kind)
        except FileNotFoundError:  # its owner has finished meanwhile
            continue
        except RecordError as error:
            logging.warning("%s; moved to %s; its images will be repeated", error, set_aside(path).name)
            continue
        rows |= {row["index"]: row for row in table.to_pylist() if row["index"] in unit.indices}
    if rows:
        logging.info("resuming with %d of %d images done", len(rows), len(unit.indices))
    return rows


def _write(
    path: Path, layout: Layout, rows: Mapping[int, Row], metadata: Mapping[str, str], *, replace: bool = True
) -> None:
    table = pa.Table.from_pylist([dict(rows[index]) for index in sorted(rows)], schema=layout.kind.schema)
    records.write_records(path, table, metadata, layout.kind, replace=replace)
