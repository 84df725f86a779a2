"""The device of a process, and that nothing asks for one too early."""

import logging
import subprocess
import sys

import pytest
import torch

from jobs.processes import unit_process
from jobs.processes.device import set_up_device
from jobs.specs.units import Resources
from pipeline.local import executor as local


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize(("given", "num_warnings"), [("0,1", 1), ("", 0), (None, 0)])
def test_a_gpu_that_was_given_and_is_not_found_is_missed(
    given: str | None, num_warnings: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    with caplog.at_level(logging.WARNING):
        assert set_up_device(Resources()) == torch.device("cpu")
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == num_warnings
    assert all("given GPUs [0,1], but torch finds none" in message for message in messages)


ASKED_TOO_EARLY = """
import importlib, sys, torch

def refuse(*_):
    raise AssertionError("the driver was asked for")

# Whatever looks for GPUs, or begins to use one, comes through these.
torch._C._cuda_getDeviceCount = torch._C._cuda_init = torch.cuda._device_count_nvml = refuse
for module in sys.argv[1:]:
    importlib.import_module(module)
try:
    torch.cuda.is_available()
except AssertionError:
    print("fine")
"""


def test_the_fork_server_never_asks_for_a_gpu() -> None:
    """CUDA cannot be used in a child of a process that has used it, and reads CUDA_VISIBLE_DEVICES at the first use."""
    modules = [*local._PRELOAD, *unit_process.modules_for("train", 2), *unit_process.modules_for("certify", 2)]
    done = subprocess.run([sys.executable, "-c", ASKED_TOO_EARLY, *modules], capture_output=True, text=True, check=True)
    assert done.stdout == "fine\n"
