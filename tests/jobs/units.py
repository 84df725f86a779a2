"""The tiny grid's units, and how to run one here and now."""

from dataclasses import replace
from typing import Any

from jobs import certify, train
from jobs.files.store import Store
from jobs.specs.indices import IndexRange
from jobs.specs.runs import Run
from jobs.specs.train import TrainSpec
from jobs.specs.units import Resources, ShardUnit, TrainUnit
from tests.grids import tiny_manifest

GAUSSIAN_RUN, PGD_RUN, _ = tiny_manifest().runs
RESOURCES = Resources(device="cpu", save_every_s=1e-6)


def train_here(store: Store, run: Run) -> None:
    train.run(TrainUnit(train=run.train), store, RESOURCES)


def certify_here(store: Store, run: Run, indices: IndexRange, resources: Resources = RESOURCES) -> None:
    certify.run(ShardUnit(run=run, indices=indices), store, resources)


def retrained(run: Run, **changes: Any) -> Run:
    """The same task on a model that is trained otherwise."""
    return on_model(run, replace(run.train, **changes))


def on_model(run: Run, model: TrainSpec) -> Run:
    """The same task on another model."""
    return Run(train=model, task=replace(run.task, train_key=model.key), indices=run.indices)
