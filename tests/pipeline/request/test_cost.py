"""CPUs for noise that a GPU does not draw: by the size of the image, and in the estimate of a launch."""

from pathlib import Path

import pytest

from configs.composition import compose_config
from jobs.files.store import Store
from jobs.specs.certify import CertifySpec
from jobs.specs.units import STAGES, ShardUnit
from pipeline.estimate import Device, forecast
from pipeline.plan import Plan
from pipeline.request.config import LaunchConfig, parse_launch
from pipeline.state.files import observe
from tests.grids import as_range

GPU: Device = "GPU"


def request(*overrides: str) -> LaunchConfig:
    return parse_launch(compose_config("launch", ["cluster=slurm", *overrides]))


@pytest.mark.parametrize(
    ("overrides", "cpus"),
    [
        (["grid=cifar_full"], 2),
        (["grid=cifar_quick", "certify.noise=gaussian"], 7),  # ResNet-20 takes 174,000 a second, a CPU draws 28,000
        (["grid=imagenet_full", "data.imagenet=none"], 2),
        (["grid=imagenet_full", "data.imagenet=none", "certify.noise=gaussian"], 8),
        (["grid=imagenet_full", "data.imagenet=none", "certify.noise=gaussian", "cluster.certify.cpus=3"], 3),
        (["grid=digits"], 2),
    ],
)
def test_cpus_of_a_certification_are_enough_for_its_noise(overrides: list[str], cpus: int) -> None:
    slurm = request(*overrides).slurm
    assert slurm is not None
    assert slurm.certify.cpus == cpus


def certify_hours(cpus: int | None, noise: str) -> float:
    """Estimated for the 15 models of ImageNet, 500 images each."""
    config = request("grid=imagenet_full", "data.imagenet=none", f"certify.noise={noise}")
    shards = tuple(ShardUnit(run=run, indices=as_range(run.indices)) for run in config.manifest.runs)
    todo = Plan(train=(), shards={"certify": shards, "attack": ()}, aggregate=None)
    store, devices = Store(Path("nowhere")), dict.fromkeys(STAGES, GPU)
    nothing = observe(config.manifest, store)
    (found,) = forecast(todo, config.manifest, nothing, store, devices=devices, certify_cpus=cpus)
    assert found.source == "published"
    return found.hours


def test_an_estimate_knows_how_fast_the_cpus_draw() -> None:
    num_images = len(request("grid=imagenet_full", "data.imagenet=none").manifest.runs) * 500
    on_gpu = num_images * 100_100 / 4_400 / 3600
    assert certify_hours(2, "exact_grid") == pytest.approx(on_gpu)
    assert certify_hours(None, "gaussian") == certify_hours(8, "gaussian") == pytest.approx(on_gpu)
    # 86 million pixels a second and CPU, of 150,528 in an image.
    assert certify_hours(2, "gaussian") == pytest.approx(num_images * 100_100 / (2 * 86e6 / 150_528) / 3600)


@pytest.mark.parametrize(
    ("option", "noise"),
    [("quick", "exact_grid"), ("adaptive", "exact_grid"), ("imagenet", "exact_grid"), ("paper", "gaussian")],
)
def test_only_the_papers_certification_takes_noise_that_a_gpu_cannot_draw(option: str, noise: str) -> None:
    tasks = [run.task for run in request("grid=cifar_full", f"certify={option}").manifest.runs]
    assert {task.noise for task in tasks if isinstance(task, CertifySpec)} == {noise}
