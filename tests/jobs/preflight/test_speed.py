"""Networks of which nothing was measured: their multiply-adds are counted, a try on the CPU is timed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.plugins import ENSEMBLE, Plugin, loading
from jobs.preflight import speed
from jobs.specs.train import TrainSpec, train_fields
from jobs.validation import build
from tests.jobs.training.test_steps import BASE, GAUSSIAN

NETS = """
from torch import nn

def wide(info):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Linear(32, info.num_classes))

def denoiser(info, sigma):
    return nn.Conv2d(1, 1, 3, padding=1)

def broken(info):
    raise RuntimeError("no")
"""
SHA256 = "0" * 64
IN_LINEAR = 64 * 10


@pytest.fixture(autouse=True)
def _own_nets(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "nets.py").write_text(NETS)
    loading.use(tmp_path)
    yield
    loading.use(None)


def _spec(**change: Any) -> TrainSpec:
    return build(TrainSpec, {**BASE, **GAUSSIAN, "architecture": "linear", **change}, where="train")


def _of(name: str, **options: Any) -> dict[str, Any]:
    return {"architecture": name, "model": Plugin(name=name, options=options)}


def test_multiply_adds_are_those_of_all_parts_of_a_network() -> None:
    assert speed.multiply_adds(_spec()) == IN_LINEAR
    assert speed.multiply_adds(_spec(**_of("nets:wide"))) == 64 * 32 + 32 * 10
    denoised = _spec(checkpoint_sha256=SHA256, denoiser=Plugin(name="nets:denoiser", options={}))
    assert speed.multiply_adds(denoised) == 9 * 64 + IN_LINEAR
    members = [{"train": train_fields(_spec(seed=seed)), "sha256": SHA256} for seed in range(3)]
    assert speed.multiply_adds(_spec(**_of(ENSEMBLE, members=members))) == 3 * IN_LINEAR


def test_multiply_adds_are_those_of_the_literature() -> None:
    assert speed.multiply_adds(_spec(architecture="cifar_resnet20", dataset="cifar10")) == pytest.approx(41e6, rel=0.02)


def test_multiply_adds_of_models_of_libraries() -> None:
    name = "torchvision:squeezenet1_1"  # 0.35 G, as torchvision says of 224 x 224 pixels and 1,000 classes
    assert speed.multiply_adds(_spec(dataset="imagenet", **_of(name))) == pytest.approx(0.35e9, rel=0.02)


def test_a_step_of_adversarial_training_takes_longer_than_a_forward_pass() -> None:
    spec = _spec(**_of("nets:wide"), method="smoothadv", attack="pgd", epsilon=0.5, num_steps=2, m_train=4)
    assert 0 < speed.image_seconds(spec, "float32", 1) < speed.image_seconds(spec, None, 1)


def test_a_network_that_fails_is_not_answered_for() -> None:
    fields = train_fields(_spec(**_of("nets:broken")))
    assert speed._answer(fields, None, None) is speed._answer(fields, None, 1) is None


@pytest.mark.parametrize(("seconds", "num_images"), [(0.001, [16, 64]), (0.1, [16])])
def test_a_small_network_is_tried_on_batches_of_the_training(
    seconds: float, num_images: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def step_seconds(spec: TrainSpec, size: int) -> float:
        tried.append(size)
        return seconds

    monkeypatch.setattr(speed, "_step_seconds", step_seconds)
    spec = _spec(method="smoothadv", attack="pgd", epsilon=0.5, num_steps=2, m_train=4, batch_size=64)
    assert speed.image_seconds(spec, None, 1) == seconds
    assert tried == num_images
