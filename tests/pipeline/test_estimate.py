"""What a launch will take: by what finished work took, on the device that will run it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.entry import run_command
from jobs.files.manifest import write_manifest
from jobs.files.store import Store
from jobs.plugins import Plugin
from jobs.specs.runs import Manifest
from jobs.specs.units import STAGES, Stage, TrainUnit
from pipeline import estimate
from pipeline.estimate import Device, Forecast, forecast
from pipeline.launch import launch
from pipeline.plan import plan
from pipeline.request.cost import MULTIPLY_ADDS_PER_S, train_cost
from pipeline.state.files import observe
from tests.grids import as_range, pretend, tiny, tiny_manifest

MANIFEST = tiny_manifest()
FIRST, *OTHERS = MANIFEST.of("certify")


def _did(path: Path, elapsed_s: Sequence[float], device: str | None = "cpu") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"elapsed_s": [*elapsed_s]})
    pq.write_table(table if device is None else table.replace_schema_metadata({"device": device}), path)


def _one_model_done(store: Store, device: str | None = "cpu") -> None:
    """It took 36 s for each epoch, and 10 s for each image."""
    _did(store.epochs_path(FIRST.train.key), [36.0] * FIRST.train.epochs, device)
    pretend(store.checkpoint_path(FIRST.train.key))
    _did(store.shard_path(FIRST.place, as_range(FIRST.indices)), [10.0] * len(FIRST.indices), device)


def _forecast(store: Store, device: Device, manifest: Manifest = MANIFEST) -> dict[Stage, Forecast]:
    observed = observe(manifest, store)
    todo = plan(manifest, observed, num_shards=2)
    devices = dict.fromkeys(STAGES, device)
    return {found.kind.stage: found for found in forecast(todo, manifest, observed, store, devices=devices)}


def test_hours_are_those_of_finished_work_on_the_same_kind_of_device(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert {found.source for found in _forecast(store, "CPU").values()} == {None}
    _one_model_done(store)
    found = _forecast(store, "CPU")
    assert {stage: own.source for stage, own in found.items()} == {"train": "measured", "certify": "measured"}
    # The other two models are of the first one's kind; one of them is attacked, which its cost knows.
    assert found["certify"].hours == pytest.approx(2 * len(FIRST.indices) * 10 / 3600)
    assert found["train"].hours > 2 * FIRST.train.epochs * 36 / 3600
    assert {own.source for own in _forecast(store, "GPU").values()} == {None}


def test_work_on_an_unknown_device_tells_nothing_of_another(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _one_model_done(store, device=None)
    assert {own.source for own in _forecast(store, "CPU").values()} == {None}


def test_the_work_of_other_grids_counts_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _one_model_done(store)
    write_manifest(store.manifest_path("tiny"), MANIFEST)
    other = tiny_manifest("grid.name=other", "certify.n=200", "train.seed=7")
    assert {own.source for own in _forecast(store, "CPU", other).values()} == {"measured"}


def test_what_stops_early_is_a_kind_of_its_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _one_model_done(store)
    write_manifest(store.manifest_path("tiny"), MANIFEST)
    other = tiny_manifest("grid.name=other", "certify.stop_wrong=true")
    assert _forecast(store, "CPU", other)["certify"].source is None


@pytest.mark.parametrize(("device", "source"), [("CPU", "timed"), ("GPU", "counted")])
def test_networks_of_which_nothing_was_measured_are_tried(
    device: Device, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(module: str, contents: Mapping[str, bytes], question: Sequence[Any]) -> list[float | None]:
        assert (module, contents) == ("jobs.preflight.speed", {"nets.py": b""})
        threads = 2 if device == "CPU" else None
        assert [how for _, *how in question] == [[None, threads], ["float32", threads]]
        return [0.5, None] if device == "CPU" else [2 * MULTIPLY_ADDS_PER_S, None]

    monkeypatch.setattr(estimate, "ask", answers)
    train = replace(FIRST.train, architecture="nets:build", model=Plugin(name="nets:build", options={}))
    run = replace(FIRST, train=train, task=replace(FIRST.task, train_key=train.key))
    manifest = Manifest(grid="own", runs=(run,))
    observed, devices = observe(manifest, Store(tmp_path)), dict.fromkeys(STAGES, device)
    own: Any = {"devices": devices, "threads": 2, "plugins": {"nets.py": b""}}
    todo = plan(manifest, observed, num_shards=2)
    found = {one.kind.stage: one for one in forecast(todo, manifest, observed, Store(tmp_path), **own)}
    assert {stage: one.source for stage, one in found.items()} == {"train": source, "certify": None}
    num_images = train.info.num_images["train"] * train.epochs
    seconds = 0.5 * num_images if device == "CPU" else 2 * train_cost(train)
    assert found["train"].hours == pytest.approx(seconds / 3600)


def test_the_unit_tried_is_one_of_those_that_cost_most_together() -> None:
    one, many = (TrainUnit(train=replace(FIRST.train, epochs=epochs)) for epochs in (1, 8))
    assert estimate._typical([one, many, one]) is many
    assert estimate._typical([many, *[one] * 20]) is one


def test_a_dry_run_says_hours_of_the_device_that_will_run_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    store = Store(tmp_path)

    def said(values: list[str]) -> list[str]:
        assert run_command("launch", launch, [*values, "dry_run=true"]) == 0
        return [line for line in capsys.readouterr().out.splitlines() if re.match(r"about|hours", line)]

    (line,) = said(tiny(tmp_path, "cluster=local"))
    assert re.fullmatch(r"about \S+ CPU-hours \(train \S+, certify \S+\) as timed on this machine", line)
    _one_model_done(store)
    (line,) = said(tiny(tmp_path, "cluster=local"))
    assert re.fullmatch(r"about \S+ CPU-hours \(train \S+, certify 0.12\) as measured in the results folder", line)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    (line,) = said(["grid=cifar_quick", "cluster=local", f"results={tmp_path}"])
    assert re.fullmatch(r"about \S+ GPU-hours \(.*\) at the speed of the published logs", line)
