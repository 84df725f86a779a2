"""Noise drawn on a device: the host's bits, by torch's operations and by the kernel; the votes that follow from it."""

import functools
import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from smoothing import counts
from smoothing.certify import LabelledImage, certify_images
from smoothing.counts import VoteCounter
from smoothing.device_noise import agree, device_noise, fastest_draw
from smoothing.distributions import ExactGridNoise, GaussianNoise
from smoothing.noise import NoiseStream
from smoothing.sequential import Procedure
from smoothing.torch_noise import DeviceTable, torch_draw
from tests.smoothing.grid_draws import num_different
from tests.smoothing.test_counts import NUM_CLASSES, random_convnet

CPU = torch.device("cpu")
GRID = ExactGridNoise(0.25, 255)
STREAM = NoiseStream(seed=2**64 - 1, index=7, stage="estimation")
Votes = list[tuple[int, list[int], list[int]]]
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


def test_torch_draws_what_the_host_draws() -> None:
    differing, compared = num_different(torch_draw, CPU)
    assert (differing, compared > 1_000_000) == (0, True)


@needs_triton
def test_the_kernel_draws_what_the_host_draws() -> None:
    """In Triton's interpreter, which is chosen by the environment that Triton is imported in."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "tests.smoothing.grid_draws"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    differing, compared = map(int, done.stdout.split())
    assert (differing, compared > 1_000_000) == (0, True)


@needs_triton
def test_the_kernel_compiles_for_gpus_and_divides_by_rounding_correctly() -> None:
    """Without a GPU: the compiler is the one that would run there."""
    program = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from smoothing.triton_noise import _kernel
pointers = dict(inputs="*fp32", centers="*fp32", slots="*i64", names="*i64", guide="*i32", thresholds="*i64")
constants = dict(num_channels=3, plane=1024, rows_per_block=100, surplus_bits=2, tail_bits=46, calls=256)
signature = pointers | dict(reach="i32", num_levels="fp32") | dict.fromkeys(constants, "constexpr")
for architecture in (80, 90):
    made = compile(ASTSource(_kernel, signature, constants), target=GPUTarget("cuda", architecture, 32))
    assert made.asm["cubin"]
    divisions = [line.split()[0] for line in made.asm["ptx"].splitlines() if "div" in line and "f32" in line]
    assert divisions and set(divisions) == {"div.rn.f32"}, divisions
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_rows_are_drawn_alone_and_in_any_order() -> None:
    table = DeviceTable(GRID, CPU)
    centers_SCHW, slots_B = torch.zeros(1, 3, 5, 7), torch.zeros(100, dtype=torch.int64)
    names_B4 = torch.from_numpy(STREAM.row_names(3))
    all_BCHW = torch_draw(centers_SCHW, slots_B, names_B4, table)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch_draw(centers_SCHW, slots_B, names_B4[order], table), all_BCHW[order])
    for row in (0, 1, 57, 99):
        alone_BCHW = torch_draw(centers_SCHW, slots_B[:1], names_B4[row : row + 1], table)
        assert torch.equal(alone_BCHW[0], all_BCHW[row])


def test_memory_of_a_large_batch_is_bounded_without_changing_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    table = DeviceTable(GRID, CPU)
    arguments = torch.zeros(1, 3, 5, 7), torch.zeros(100, dtype=torch.int64), torch.from_numpy(STREAM.row_names(3))
    at_once = torch_draw(*arguments, table)
    monkeypatch.setattr("smoothing.torch_noise._VALUES_AT_ONCE", 1000)
    assert torch.equal(torch_draw(*arguments, table), at_once)


def test_the_host_draws_on_a_cpu_and_what_only_it_can() -> None:
    assert device_noise(GRID, CPU) is None
    assert device_noise(GaussianNoise(0.25), torch.device("cuda")) is None


def off_by_one(centers_SCHW: Tensor, slots_B: Tensor, names_B4: Tensor, table: DeviceTable) -> Tensor:
    """The noise of each row's successor."""
    return torch_draw(centers_SCHW, slots_B, names_B4 + torch.tensor([0, 0, 0, 1]), table)


def test_a_kernel_that_draws_other_noise_is_noticed() -> None:
    table = DeviceTable(GRID, CPU)
    assert agree(torch_draw, table, CPU)
    assert not agree(off_by_one, table, CPU)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_where_the_kernel_does_not_run_torch_draws_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert fastest_draw(DeviceTable(GRID, CPU), torch.device("cuda")) is torch_draw
    assert "the kernel that draws noise on the GPU is not used" in caplog.text
    assert "draw the same noise more slowly" in caplog.text


def votes_of_whole_batches(classifier: nn.Module, monkeypatch: pytest.MonkeyPatch, *, on_device: bool) -> Votes:
    """Votes of some images, counted in the way of a GPU, by noise of the device or of the host."""
    monkeypatch.setattr(VoteCounter, "_votes_in_pieces", VoteCounter._votes_at_once)
    draw = functools.partial(torch_draw, table=DeviceTable(GRID, CPU)) if on_device else None
    monkeypatch.setattr(counts, "device_noise", lambda *_: draw)
    generator = torch.Generator().manual_seed(1)
    images = (
        LabelledImage(index=index, label=0, image_CHW=torch.randint(256, (3, 8, 8), generator=generator).float() / 255)
        for index in range(6)
    )
    procedure = Procedure(n0=100, n=2000, alpha=0.001)
    done = certify_images(classifier, images, procedure, GRID, num_classes=NUM_CLASSES, seed=3, batch_size=700)
    found = [(image.index, item.counts0.tolist(), item.counts.tolist()) for image, item in done]
    assert sum(np.count_nonzero(counts) > 1 for _, _, counts in found) > 3, "votes that are all alike would show little"
    return sorted(found)


def test_noise_of_host_and_device_gives_the_same_votes(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = random_convnet()
    by_device = votes_of_whole_batches(classifier, monkeypatch, on_device=True)
    assert by_device == votes_of_whole_batches(classifier, monkeypatch, on_device=False)
