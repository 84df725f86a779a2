"""Settings of the process are put back after the code of a plug-in."""

import contextlib
import logging
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.errors import ConfigError
from jobs.plugins import loading, settings


@pytest.fixture(autouse=True)
def _forget_plugins() -> Iterator[None]:
    yield
    loading.use(None)


def _state() -> list[Any]:
    """What no plug-in may change, written down without the code under test."""
    cudnn = torch.backends.cudnn
    return [
        dict(os.environ),
        Path.cwd(),
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)],
        [*warnings.filters],
        np.geterr(),
        logging.root.level,
        logging.root.manager.disable,
        [*logging.root.handlers],
        (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()),
        (torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()),
        (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32),
    ]


CHANGES: dict[str, Callable[[], object]] = {
    "a variable of the environment": lambda: os.environ.update(CUDA_VISIBLE_DEVICES="7", NEW="1"),
    "a variable that is gone": lambda: os.environ.pop("PATH"),
    "the folder": lambda: os.chdir("/"),
    "a handler": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "warnings": lambda: warnings.simplefilter("ignore"),
    "errors of numpy": lambda: np.seterr(all="ignore"),
    "no log": lambda: logging.disable(logging.CRITICAL),
    "another log": lambda: logging.basicConfig(level=logging.DEBUG, force=True),
    "threads": lambda: torch.set_num_threads(torch.get_num_threads() + 5),
    "dtype": lambda: torch.set_default_dtype(torch.float64),
    "gradients": lambda: torch.set_grad_enabled(False),
    "matrix products": lambda: torch.set_float32_matmul_precision("medium"),
    "determinism": lambda: torch.use_deterministic_algorithms(True),
    "the choice of kernels": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "convolutions": lambda: setattr(torch.backends.cudnn, "allow_tf32", not torch.backends.cudnn.allow_tf32),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_changed_is_put_back_whatever_happens(change: Callable[[], object]) -> None:
    before, during = _state(), None
    with contextlib.suppress(ZeroDivisionError), settings.kept() as changed:
        change()
        during = _state()
        raise ZeroDivisionError
    assert during not in (before, None)
    assert _state() == before
    assert all(name.startswith("torch.") for name in changed)


def test_what_was_changed_of_torch_is_named() -> None:
    with settings.kept() as changed:
        CHANGES["gradients"]()
        CHANGES["the folder"]()
    assert changed == ["torch.is_grad_enabled"]
    with settings.kept() as changed, torch.no_grad():
        pass
    assert changed == []


def test_what_a_module_draws_and_sets_when_imported_is_the_same_each_time_and_put_back(tmp_path: Path) -> None:
    text = "import random, numpy as np, torch\nDRAWN = random.random(), np.random.rand(), torch.rand(1).item()\n"
    (tmp_path / "constants.py").write_text(f"{text}torch.manual_seed(7)\nnp.random.seed(7)\nrandom.seed(7)\n")
    drawn = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        expected = torch.Generator().manual_seed(seed)
        loading.use(tmp_path)
        drawn.append(loading.load("constants:DRAWN"))
        loading.use(None)
        assert random.random() == random.Random(seed).random()
        assert np.random.rand() == np.random.RandomState(seed).rand()
        assert torch.equal(torch.rand(3), torch.rand(3, generator=expected))
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("statement", ["torch.set_num_threads(torch.get_num_threads() + 1)", "os.chdir('/')"])
def test_a_plug_in_that_is_imported_or_built_changes_nothing(tmp_path: Path, statement: str) -> None:
    text = f"import os, torch\n{statement}\ndef build():\n    {statement}\n    raise SystemExit(0)\n"
    (tmp_path / "nets.py").write_text(text)
    loading.use(tmp_path)
    before = _state()
    build = loading.load("nets:build")
    assert _state() == before
    with pytest.raises(ConfigError, match=r"^nets:build: nets.py:5: SystemExit: 0$"), loading.errors_of("nets:build"):
        build()
    assert _state() == before
    assert "nets" in sys.modules
