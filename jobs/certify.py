"""Certification of one shard, resumable image by image."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from jobs import interrupt, records
from jobs.atomic import remove_stale_temporaries, set_aside
from jobs.checkpoint import TrainedClassifier, load_classifier
from jobs.datasets import Images, dataset_info, load_images
from jobs.device import device_name, set_up_device
from jobs.errors import CheckpointError, RecordError
from jobs.manifest import Run
from jobs.provenance import provenance
from jobs.store import Store
from jobs.units import CertifyUnit, Resources
from smoothing.certify import certify

Row = Mapping[str, Any]


def run(unit: CertifyUnit, store: Store, resources: Resources) -> None:
    """Certify the images of a shard, or the rest of them, until its file is there.

    Raises:
        CheckpointError: There is no sound checkpoint of the run. A damaged or foreign one is set
            aside, so that the next launch trains anew.
    """
    train_key, certify_key = unit.run.train.key, unit.run.certify.key
    path = store.shard_path(train_key, certify_key, unit.indices)
    if path.exists():
        logging.info("already certified: %s", path)
        return
    remove_stale_temporaries(path.parent)
    device = set_up_device(resources)
    trained = _load_or_set_aside(unit, store, device)
    metadata = {
        **records.spec_metadata(unit.run.train, unit.run.certify),
        **provenance(),
        "source": "certify",
        "checkpoint_sha256": trained.weights_sha256,
        "device": device_name(device),
    }
    rows = _saved_rows(unit, store, trained.weights_sha256)
    images = load_images(unit.run.train.dataset, unit.run.certify.split)
    saved_at = time.monotonic()
    for index in unit.indices:
        if index in rows:
            continue
        rows[index] = _certified_row(unit.run, index, images, trained, device, resources.batch_size)
        if interrupt.was_asked() or time.monotonic() - saved_at >= resources.save_every_s:
            if path.exists():  # a lost node's copy of this unit was faster
                break
            _write(store.partial_path(train_key, certify_key, unit.indices), rows, metadata)
            saved_at = time.monotonic()
            logging.info("certified %d of %d images", len(rows), len(unit.indices))
            interrupt.stop_if_asked()
    if not path.exists():
        _write(path, rows, metadata, replace=False)
    logging.info("certified all %d images: %s", len(unit.indices), path)
    _remove_served_partials(unit, store)


def _load_or_set_aside(unit: CertifyUnit, store: Store, device: torch.device) -> TrainedClassifier:
    path = store.checkpoint_path(unit.run.train.key)
    try:
        return load_classifier(path, unit.run.train, device)
    except CheckpointError as error:
        if not path.exists():
            raise
        moved = set_aside(path)
        raise CheckpointError(f"{error}; moved to {moved.name}: launch again to train this run anew") from error


def _saved_rows(unit: CertifyUnit, store: Store, weights_sha256: str) -> dict[int, Row]:
    """Rows of this shard's images in any unfinished file of the run, by index.

    Other shards of the run may be under way: their files come and go, and hold nothing of ours
    unless the layout has changed.
    """
    train_key, certify_key = unit.run.train.key, unit.run.certify.key
    rows: dict[int, Row] = {}
    for indices in store.partial_shards(train_key, certify_key):
        if not set(indices).intersection(unit.indices):
            continue
        path = store.partial_path(train_key, certify_key, indices)
        try:
            metadata = records.check_specs(path, unit.run.train, unit.run.certify)
            if metadata["checkpoint_sha256"] != weights_sha256:
                raise RecordError(f"{path}: certified with other weights")
            table = records.read_records(path)
        except FileNotFoundError:  # its owner has finished meanwhile
            continue
        except RecordError as error:
            logging.warning("%s; moved to %s, its images are certified again", error, set_aside(path).name)
            continue
        rows |= {row["index"]: row for row in table.to_pylist() if row["index"] in unit.indices}
    if rows:
        logging.info("going on with %d of %d images certified before", len(rows), len(unit.indices))
    return rows


def _certified_row(
    run: Run, index: int, images: Images, trained: TrainedClassifier, device: torch.device, batch_size: int
) -> Row:
    started = time.perf_counter()
    spec, label = run.certify, int(images.labels[index])
    certificate = certify(
        trained.classifier,
        torch.from_numpy(images.inputs[index]).to(device),
        sigma=spec.sigma_cert,
        n0=spec.n0,
        n=spec.n,
        alpha=spec.alpha,
        num_classes=dataset_info(run.train.dataset).num_classes,
        seed=spec.seed,
        index=index,
        batch_size=batch_size,
    )
    return {
        **records.run_columns(run.train, spec),
        **records.image_columns(index, label, certificate, time.perf_counter() - started),
    }


def _write(path: Path, rows: Mapping[int, Row], metadata: Mapping[str, str], *, replace: bool = True) -> None:
    table = records.to_table([rows[index] for index in sorted(rows)])
    records.write_records(path, table, metadata, replace=replace)


def _remove_served_partials(unit: CertifyUnit, store: Store) -> None:
    """Remove unfinished files all of whose images are in finished ones by now."""
    train_key, certify_key = unit.run.train.key, unit.run.certify.key
    finished = {index for shard in store.finished_shards(train_key, certify_key) for index in shard}
    for partial in store.partial_shards(train_key, certify_key):
        if finished.issuperset(partial):
            store.partial_path(train_key, certify_key, partial).unlink(missing_ok=True)
