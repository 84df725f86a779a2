"""Certification of one shard, resumable image by image."""

from __future__ import annotations

from typing import Any

from jobs import records
from jobs.checkpoint import TrainedClassifier
from jobs.datasets import dataset_info
from jobs.shards import LabelledImage, run_shard
from jobs.store import Store
from jobs.units import CertifyUnit, Resources
from smoothing.certify import certify


def run(unit: CertifyUnit, store: Store, resources: Resources) -> None:
    """Certify the images of a shard, or the rest of them, until its file is there.

    Raises:
        CheckpointError: There is no sound checkpoint of the run. A damaged or foreign one is set
            aside, so that the next launch trains anew.
    """
    spec, num_classes = unit.run.certify, dataset_info(unit.run.train.dataset).num_classes

    def certify_image(trained: TrainedClassifier, labelled: LabelledImage) -> dict[str, Any]:
        certificate = certify(
            trained.classifier,
            labelled.image_CHW,
            sigma=spec.sigma_cert,
            n0=spec.n0,
            n=spec.n,
            alpha=spec.alpha,
            num_classes=num_classes,
            seed=spec.seed,
            index=labelled.index,
            batch_size=resources.batch_size,
        )
        return records.image_columns(labelled.label, certificate)

    run_shard(unit, spec.split, store, resources, certify_image)
