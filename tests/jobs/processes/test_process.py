"""Being asked to stop: work is saved, and goes on to the same records."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jobs import certify, shards, train
from jobs.files import records
from jobs.files.failures import failures_of
from jobs.files.manifest import read_manifest
from jobs.files.store import Store
from jobs.plugins import Plugin
from jobs.processes import interrupt, unit_process
from jobs.processes.unit_process import UnitProcess
from jobs.specs.indices import IndexRange
from jobs.specs.units import Resources, ShardUnit, TrainUnit, Unit

STOPS = """
from dataclasses import dataclass


@dataclass(frozen=True)
class Stops:
    def __call__(self, networks, batch, generator):
        losses = networks.noisy_logits(batch).logsumexp(-1)
        if batch.epoch == 1:
            STATEMENT
        return losses
"""
SAVE_AT_THE_END_ONLY = Resources(device="cpu", save_every_s=3600.0)


@pytest.fixture
def store(tmp_path: Path, undisturbed_results: Path) -> Store:
    return Store(Path(shutil.copytree(undisturbed_results, tmp_path / "results")))


def _interrupted(unit: Unit, store: Store, has_begun: Callable[[], object]) -> UnitProcess:
    unit_process.start_fork_server(unit_process.WARM)
    running = unit_process.start(unit, store, SAVE_AT_THE_END_ONLY, store.root / "unit.log")
    while not has_begun():
        assert running.process.is_alive()
        time.sleep(0.005)
    unit_process.interrupt_all([running], patience_s=30)
    return running


def test_training_stops_at_once_and_goes_on_from_its_last_epoch(store: Store) -> None:
    spec = read_manifest(store.manifest_path("tiny")).runs[0].train
    longer = replace(spec, epochs=60)
    running = _interrupted(TrainUnit(train=longer), store, lambda: store.saved_epochs(longer.key))
    assert running.was_interrupted
    assert 0 < store.saved_epochs(longer.key)[-1] < 60
    assert not store.is_trained(longer.key)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("__import__('os')._exit(0)", "the process exited with code 0, but its unit is not done"),
        ("raise KeyboardInterrupt", "stops.py:10: RuntimeError: ended by KeyboardInterrupt()"),
        ("raise GeneratorExit", "stops.py:10: RuntimeError: ended by GeneratorExit()"),
        ("raise StopIteration", "stops.py:10: RuntimeError: generator raised StopIteration"),
    ],
)
def test_a_training_that_its_method_ends_has_failed(store: Store, statement: str, message: str) -> None:
    plugins = store.root / "plugins"
    plugins.mkdir()
    (plugins / "stops.py").write_text(STOPS.replace("STATEMENT", statement))
    spec = read_manifest(store.manifest_path("tiny")).runs[0].train
    spec = replace(spec, objective=Plugin(name="stops:Stops", options={}))
    unit_process.start_fork_server(unit_process.WARM)
    resources = Resources(device="cpu", plugins=str(plugins))
    running = unit_process.start(TrainUnit(train=spec), store, resources, store.root / "unit.log")
    failure = running.ended(store)
    assert failure is not None
    assert failure.message == message
    assert not store.is_trained(spec.key)


def test_certification_saves_what_it_has_and_goes_on(store: Store) -> None:
    run = read_manifest(store.manifest_path("tiny")).runs[0]
    shutil.rmtree(store.shards_dir(run.place))
    unit = ShardUnit(run=run, indices=IndexRange(start=0, stop=500))
    log = store.root / "unit.log"
    running = _interrupted(unit, store, lambda: log.exists() and "begin" in log.read_text())
    assert running.was_interrupted
    assert failures_of(store, unit) == []
    path = store.partial_path(run.place, unit.indices)
    assert 0 < records.num_rows(path) < 500


def test_whoever_is_second_leaves_the_first_one_s_file(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = read_manifest(store.manifest_path("tiny")).runs[0]
    unit = ShardUnit(run=run, indices=IndexRange(start=0, stop=7))
    path = store.shard_path(run.place, unit.indices)
    kept = path.rename(path.with_suffix(".kept"))
    load_images = shards.load_images

    def finish_elsewhere_meanwhile(*args: str) -> object:
        shutil.copy2(kept, path)
        return load_images(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(shards, "load_images", finish_elsewhere_meanwhile)
    certify.run(unit, store, SAVE_AT_THE_END_ONLY)
    assert path.read_bytes() == kept.read_bytes()


def test_training_that_another_copy_has_finished_stops(store: Store) -> None:
    run = read_manifest(store.manifest_path("tiny")).runs[0]
    path = store.checkpoint_path(run.train.key)
    kept = path.rename(path.with_suffix(".kept"))
    unit, load_images = TrainUnit(train=run.train), train.load_images

    def finish_elsewhere_meanwhile(*args: str) -> object:
        shutil.copy2(kept, path)
        return load_images(*args)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "load_images", finish_elsewhere_meanwhile)
        train.run(unit, store, SAVE_AT_THE_END_ONLY)
    assert path.read_bytes() == kept.read_bytes()
    assert not store.state_dir(run.train.key).exists()


def test_training_whose_folder_is_tidied_away_by_a_faster_copy_is_no_failure(store: Store) -> None:
    run = read_manifest(store.manifest_path("tiny")).runs[0]
    path, save = store.checkpoint_path(run.train.key), train._save_state
    kept = path.rename(path.with_suffix(".kept"))

    def overtaken(*args: object) -> None:
        save(*args)  # type: ignore[arg-type]
        shutil.copy2(kept, path)
        shutil.rmtree(store.state_dir(run.train.key))
        raise FileNotFoundError("the temporary file")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_save_state", overtaken)
        train.run(TrainUnit(train=run.train), store, SAVE_AT_THE_END_ONLY)
        path.unlink()
        patch.setattr(shutil, "copy2", lambda *_: None)
        with pytest.raises(FileNotFoundError):  # nobody has finished: the folder should be there
            train.run(TrainUnit(train=run.train), store, SAVE_AT_THE_END_ONLY)


_SEND = """
import os, signal, sys
for _ in range(30_000):
    os.kill(int(sys.argv[1]), signal.SIGUSR2)
    os.kill(int(sys.argv[1]), signal.SIGTERM)
"""
_TAKE = """
import os, subprocess, sys
from jobs.plugins import Plugin
from jobs.processes import interrupt
interrupt.listen()
sender = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())])
while sender.poll() is None:
    pass
print(interrupt.was_asked())
"""


def test_signals_may_come_while_others_are_taken() -> None:
    """SLURM signals every process of a job, and so does the one that watches over the units."""
    asked = subprocess.run([sys.executable, "-c", _TAKE, _SEND], timeout=60, capture_output=True, text=True, check=True)
    assert asked.stdout == "True\n"


def test_nobody_is_asked_unless_asked() -> None:
    assert not interrupt.was_asked()
    interrupt.stop_if_asked()
