"""What only a GPU can show: its noise is the host's, its votes are the CPU's, its errors have their class."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from jobs.datasets import dataset_info
from jobs.files.failures import classify
from jobs.networks.classifier import build_classifier
from jobs.networks.inference import for_inference
from smoothing.certify import LabelledImage, certify_images
from smoothing.device_noise import fastest_draw
from smoothing.distributions import ExactGridNoise, Noise, noise_distribution
from smoothing.sequential import Procedure
from smoothing.torch_noise import DeviceTable
from tests.smoothing.grid_draws import num_different

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
GPU = torch.device("cuda")
INFO = dataset_info("cifar10")


def test_the_gpu_draws_what_the_host_draws() -> None:
    differing, compared = num_different(None, GPU)
    assert (differing, compared > 1_000_000) == (0, True)


def test_it_is_the_kernel_that_draws() -> None:
    from smoothing.triton_noise import triton_draw

    assert fastest_draw(DeviceTable(ExactGridNoise(0.25, 255), GPU), GPU) is triton_draw


def votes(device: torch.device, noise: Noise) -> npt.NDArray[np.int64]:
    """Votes of four images for a network of random weights, by image."""
    torch.manual_seed(0)
    classifier = build_classifier("cifar_resnet20", INFO).eval().requires_grad_(False).to(device)
    levels = torch.randint(256, (4, *INFO.image_shape), generator=torch.Generator().manual_seed(1))
    images = (LabelledImage(index=nr, label=0, image_CHW=values.float() / 255) for nr, values in enumerate(levels))
    done = certify_images(
        for_inference(classifier, "float32", device),
        images,
        Procedure(n0=100, n=2000, alpha=0.001),
        noise_distribution(noise, 1.0, INFO.num_levels),
        num_classes=INFO.num_classes,
        seed=0,
        batch_size=700,
        device=device,
    )
    return np.array([item.counts for _, item in sorted(done, key=lambda pair: pair[0].index)])


@pytest.mark.parametrize("noise", ["exact_grid", "gaussian"])
def test_votes_are_those_of_the_cpu(noise: Noise) -> None:
    on_gpu, on_cpu = votes(GPU, noise), votes(torch.device("cpu"), noise)
    assert on_gpu.sum(axis=1).tolist() == [2000] * 4
    # The same inputs; what the network rounds otherwise decides a vote in a thousand at most.
    assert np.abs(on_gpu - on_cpu).sum(axis=1).max() <= 2 * 2


def test_too_little_memory_has_its_class() -> None:
    with pytest.raises(torch.cuda.OutOfMemoryError) as caught:
        torch.empty(1 << 50, device=GPU)
    assert classify(caught.value) == "cuda_oom"


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are not two GPUs here")
def test_two_processes_train_one_model_by_nccl(tmp_path: Path) -> None:
    block = "[{method: gaussian, sigma: 0.25}]"
    command = [sys.executable, "-m", "pipeline.launch", "grid=digits", "grid.name=two", f"grid.blocks={block}"]
    command += ["grid.exclude=[]", "train.num_processes=2", "train.epochs=2", "certify.n=100", "cluster=local"]
    done = subprocess.run([*command, f"results={tmp_path}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
