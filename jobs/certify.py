"""Certification of one shard, resumable image by image."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.datasets import dataset_info
from jobs.errors import DataError
from jobs.files import records
from jobs.files.store import Store
from jobs.networks.checkpoint import TrainedClassifier
from jobs.networks.inference import for_inference
from jobs.shards import Done, run_shard
from jobs.specs.certify import CertifySpec
from jobs.specs.runs import Run
from jobs.specs.units import Resources, ShardUnit
from smoothing.certify import LabelledImage, certify_images
from smoothing.distributions import OffGridError, noise_distribution
from smoothing.sequential import Procedure


def run(unit: ShardUnit, store: Store, resources: Resources) -> None:
    """Certify the images of a shard, or the rest of them, until its file exists.

    Raises:
        CheckpointError: There is no sound checkpoint of the run. A damaged or foreign one is set
            aside, so that the next launch retrains it.
        DataError: An image does not suit the noise; names it.
        ConfigError: The device does not have the precision.
    """

    def certify_them(trained: TrainedClassifier, images: Iterator[LabelledImage]) -> Iterator[Done]:
        return _certified(unit.run, trained, images, resources)

    run_shard(unit, store, resources, certify_them)


def _certified(
    run: Run, trained: TrainedClassifier, images: Iterator[LabelledImage], resources: Resources
) -> Iterator[Done]:
    spec, info = run.certify, dataset_info(run.train.dataset)
    device = next(trained.classifier.buffers()).device
    try:
        for image, certificate in certify_images(
            for_inference(trained.classifier, spec.precision, device, compile=resources.compile),
            images,
            procedure(spec),
            noise_distribution(spec.noise, spec.sigma_cert, info.num_levels),
            num_classes=info.num_classes,
            seed=spec.seed,
            batch_size=resources.batch_size,
            device=device,
        ):
            yield image, records.image_columns(image.label, certificate)
    except OffGridError as error:
        raise DataError(f"{run.train.dataset}, {spec.split} split: {error}") from error


def procedure(spec: CertifySpec) -> Procedure:
    """The settings of CERTIFY in a spec."""
    return Procedure(
        n0=spec.n0,
        n=spec.n,
        alpha=spec.alpha,
        mode=spec.mode,
        stop_rule=spec.stop_rule,
        radius_step=spec.radius_step,
        stop_wrong=spec.stop_wrong,
        curtail=spec.curtail,
    )
