"""The tiny grid's units, and how to run one here and now."""

from __future__ import annotations

from jobs import certify, train
from jobs.files.store import Store
from jobs.specs.indices import IndexRange
from jobs.specs.runs import Run
from jobs.specs.units import CertifyUnit, Resources, TrainUnit
from tests.grids import tiny_manifest

GAUSSIAN_RUN, PGD_RUN, _ = tiny_manifest().runs
RESOURCES = Resources(device="cpu", save_every_s=1e-6)


def train_here(store: Store, run: Run) -> None:
    train.run(TrainUnit(train=run.train), store, RESOURCES)


def certify_here(store: Store, run: Run, indices: IndexRange, resources: Resources = RESOURCES) -> None:
    certify.run(CertifyUnit(run=run, indices=indices), store, resources)
