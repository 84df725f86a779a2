"""Plug-ins that would break a certificate or a training are refused, with the line that does it."""

import json
import os
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from jobs.errors import ConfigError
from jobs.plugins import Plugin, loading
from jobs.plugins.guards import guarded
from jobs.preflight import checks
from jobs.specs.certify import Precision
from jobs.specs.train import TrainSpec
from jobs.validation import build
from tests.jobs.training.test_steps import BASE, GAUSSIAN

HEAD = """
    import torch
    from torch import nn
    from torch.nn import functional as F
    from smoothing.counts import cpu_rows


    class Net(nn.Module):
        def __init__(self, info):
            super().__init__()
            self.first = nn.Conv2d(1, 4, 3)
            self.norm = nn.BatchNorm2d(4)
            self.last = nn.Linear(4 * 6 * 6, info.num_classes)

        def forward(self, x):
            x = F.relu(self.norm(self.first(x)))
            x = x.flatten(1)
            LINE
            return self.last(x)


    def build(info):
        return Net(info)
"""
LINE = 17  # of LINE, counted from 1


@pytest.fixture(autouse=True)
def _forget_plugins() -> Iterator[None]:
    yield
    loading.use(None)


def plugins(folder: Path, name: str, text: str) -> None:
    folder.mkdir()
    (folder / f"{name}.py").write_text(textwrap.dedent(text).lstrip("\n"))
    loading.use(folder)


def with_network(folder: Path, line: str) -> TrainSpec:
    plugins(folder, "nets", HEAD.replace("LINE", line))
    return _with_plugin(Plugin(name="nets:build", options={}))


def _with_plugin(model: Plugin) -> TrainSpec:
    return build(TrainSpec, {**BASE, **GAUSSIAN, "architecture": model.name, "model": model}, where="train")


def network_problem(folder: Path, line: str) -> str | None:
    with guarded(1000, "four steps"):
        return checks.network_problem(with_network(folder, line))


def test_a_sound_network_passes(tmp_path: Path) -> None:
    assert network_problem(tmp_path / "own", "x = F.dropout(x, 0.5, self.training)") is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x = F.batch_norm(x, None, None, training=True)", "depend on the other images of its batch"),
        ("x = x + x.roll(1, 0)", "depend on the other images of its batch"),
        ("x = x - x.mean(0)", "depend on the other images of its batch"),
        ("x = x - (x.mean(0) if len(x) > 64 else 0)", "depend on the other images of its batch"),
        ("x = x - (x.mean(0) if len(x) == cpu_rows((1, 8, 8)) else 0)", "depend on the other images of its batch"),
        ("x = x + 2e-5 * torch.randn_like(x)", "is random in evaluation mode: two calls differ"),
        ("x = F.dropout(x, 0.5)", "is random in evaluation mode: two calls differ"),
        ("return self.last(x)[:, :7]", "gives (64, 7), expected logits of (64, 10)"),
        ("x = x / (x.sum(1, keepdim=True) * 0)", "gives values that are not finite"),
        ("return torch.complex(self.last(x), self.last(x))", "gives logits of torch.complex64, expected real numbers"),
        ("x = 2 * x if x.is_cuda else x", "does something else on a GPU than on a CPU"),
        ("x = x * (2.0 if x.device.type == 'cuda' else 1.0)", "does something else on a GPU than on a CPU"),
    ],
)
def test_what_breaks_a_certificate_is_refused_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    problem = network_problem(tmp_path / "own", line)
    assert problem is not None
    assert message in problem
    # A branch shows where the courses part: here, or in the next line.
    assert problem.startswith("nets.py:")
    assert int(problem.removeprefix("nets.py:").partition(":")[0]) in (LINE, LINE + 1)


def test_a_change_that_no_operation_shows_is_refused(tmp_path: Path) -> None:
    line = "self.calls = getattr(self, 'calls', 0) + 1; x = x + (self.calls == 3)"
    assert str(network_problem(tmp_path / "own", line)).startswith("something in it is random in evaluation mode")


@pytest.mark.parametrize(
    ("line", "precision", "batch_size"),
    [
        ("x = x - (x.mean(0) if len(x) >= 1000 else 0)", "float32", 1000),
        ("x = x - (x.mean(0) if x.dtype == torch.bfloat16 else 0)", "bfloat16", 1),
        ("x = x + (torch.rand_like(x) if x.dtype == torch.float16 else 0)", "float16", 1),
        ("x = x + torch.zeros(1, 144) @ torch.eye(144)", "bfloat16", 1),
    ],
)
def test_a_network_is_tried_as_a_grid_certifies_it(
    tmp_path: Path, line: str, precision: Precision, batch_size: int
) -> None:
    spec = with_network(tmp_path / "own", line)
    with guarded(1000, "four steps"):
        assert checks.network_problem(spec) is None
        problem = str(checks.network_problem(spec, precision, batch_size))
    prefix = "" if precision == "float32" else f"in {precision}, "
    assert problem.startswith(f"{prefix}nets.py:")
    assert int(problem.removeprefix(f"{prefix}nets.py:").partition(":")[0]) in (LINE, LINE + 1)


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "tf32"])
def test_a_sound_network_passes_in_every_precision(tmp_path: Path, precision: Precision) -> None:
    with guarded(1000, "four steps"):
        assert checks.network_problem(with_network(tmp_path / "own", "x = x.relu()"), precision, 10**9) is None


@pytest.mark.parametrize(
    "condition",
    [
        "torch.is_inference_mode_enabled()",
        "not torch.is_grad_enabled()",
        "threading.current_thread().name[0] == 'T'",
    ],
)
def test_a_network_that_computes_something_else_when_certified_is_refused(tmp_path: Path, condition: str) -> None:
    problem = network_problem(tmp_path / "own", f"import threading; x = x - (x.mean(0) if {condition} else 0)")
    assert problem is not None
    assert "traced, or runs in inference mode on another thread" in problem


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("torch.manual_seed(0)", "manual_seed sets the global random state"),
        ("__import__('numpy').random.seed(0)", "seed sets the global random state"),
        ("torch.set_num_threads(3)", "set_num_threads changes a setting for the whole process"),
        ("torch.set_default_dtype(torch.float64)", "set_default_dtype changes a setting for the whole process"),
        ("torch.set_float32_matmul_precision('high')", "set_float32_matmul_precision changes a setting"),
        ("torch.use_deterministic_algorithms(True)", "use_deterministic_algorithms changes a setting"),
        ("import os; os.chdir('/')", "chdir changes a setting for the whole process"),
        ("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)", "signal changes a setting"),
        ("import os; os.fork()", "must not start processes"),
        ("import subprocess; subprocess.run(['true'])", "must not start processes"),
        ("[print(one) for one in range(1_000_000)]", "prints more than 1,000 lines"),
        ("raise ValueError('three')", "ValueError: three"),
    ],
)
def test_what_a_plug_in_may_not_do_is_refused_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    spec = with_network(tmp_path / "own", line)
    with guarded(1000, "four steps"), pytest.raises((RuntimeError, ValueError), match=r"\w") as caught:
        checks.network_problem(spec)
    described = loading.described(caught.value)
    assert described.startswith(f"nets.py:{LINE}: ")
    assert message in described


@pytest.mark.parametrize(
    "line",
    [
        "with torch.random.fork_rng(): x = x + 0",
        "with torch.set_grad_enabled(False): x = x + 0",
        "import os; os.environ['MINE'] = '1'",
        "import warnings; warnings.simplefilter('ignore')",
    ],
)
def test_what_is_put_back_is_no_problem(tmp_path: Path, line: str) -> None:
    before, num_threads = dict(os.environ), torch.get_num_threads()
    assert _answers(with_network(tmp_path / "plugins", line)) == []
    assert (dict(os.environ), torch.get_num_threads()) == (before, num_threads)


def test_what_a_library_sets_when_it_is_imported_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "library.py").write_text("import torch\ntorch.set_num_threads(torch.get_num_threads() + 1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    num_threads = torch.get_num_threads()
    plugins(tmp_path / "plugins", "nets", "    import library\n" + HEAD.replace("LINE", "pass").lstrip("\n"))
    assert _answers(_with_plugin(Plugin(name="nets:build", options={}))) == []
    assert torch.get_num_threads() == num_threads


def test_a_network_that_leaves_gradients_off_is_refused(tmp_path: Path) -> None:
    spec = with_network(tmp_path / "plugins", "torch.set_grad_enabled(False)")
    (problem,) = _answers(spec)
    assert problem.startswith("nets:build: sets torch.is_grad_enabled for the whole process")
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("drawn", "kept"), [("torch.rand(1).item()", False), ("nn.Parameter(torch.rand(1))", True), ("0.5", True)]
)
def test_a_network_whose_weights_do_not_determine_it_is_refused(tmp_path: Path, drawn: str, kept: bool) -> None:
    text = HEAD.replace("            self.first =", f"            self.factor = {drawn}\n            self.first =")
    plugins(tmp_path / "own", "nets", text.replace("LINE", "x = x * self.factor"))
    with guarded(1000, "four steps"):
        problem = checks.network_problem(_with_plugin(Plugin(name="nets:build", options={})))
    assert (
        problem is None if kept else "gives other values in a copy of the network with the same weights" in str(problem)
    )
    assert kept or str(problem).startswith(f"nets.py:{LINE + 1}: mul")


OBJECTIVE = """
    from dataclasses import dataclass

    import torch

    calls = []


    @dataclass(frozen=True, kw_only=True)
    class Mine:
        weight: float = 1.0

        def __call__(self, networks, batch, generator):
            losses = networks.noisy_logits(batch).logsumexp(-1)
            LINE
            return losses
"""


def method_problem(folder: Path, line: str) -> str | None:
    plugins(folder, "objectives", OBJECTIVE.replace("LINE", line))
    objective = Plugin(name="objectives:Mine", options={"weight": 1.0})
    spec = build(TrainSpec, {**BASE, **GAUSSIAN, "m_train": 2, "objective": objective}, where="train")
    with guarded(1000, "four steps"):
        return checks.method_problem(spec)


@pytest.mark.parametrize(
    "line", ["losses = losses.mean(0)", "losses = losses + 0.1 * torch.rand(losses.shape, generator=generator)"]
)
def test_a_sound_objective_passes(tmp_path: Path, line: str) -> None:
    assert method_problem(tmp_path / "own", line) is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("losses = losses * float('nan')", "loss or weights are not finite"),
        ("calls.append(0); losses = losses * len(calls)", "the same two steps gave other weights the second time"),
    ],
)
def test_steps_that_cannot_be_repeated_are_refused(tmp_path: Path, line: str, message: str) -> None:
    assert message in str(method_problem(tmp_path / "own", line))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("losses = losses.mean()", "(objectives.py:12): must return losses of shape (4,) or (2, 4)"),
        ("losses = losses.detach()", "(objectives.py:12): its loss has no gradient"),
        ("losses = 3", "got int"),
    ],
)
def test_what_is_no_loss_is_refused_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        method_problem(tmp_path / "own", line)
    assert message in str(caught.value)


def _answers(*specs: TrainSpec) -> list[str]:
    """What is answered of some trainings, whose plug-ins are in the folder that was loaded."""
    folder = Path(str(loading._root)).parent
    (folder / "question.json").write_text(
        json.dumps([[asdict(spec), "float32", 1000] for spec in specs]), encoding="utf-8"
    )
    checks.main(folder)
    answers: list[str] = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    return answers


def test_problems_of_all_plug_ins_are_told_at_once(tmp_path: Path) -> None:
    spec = with_network(tmp_path / "plugins", "x = x.roll(1, 0)")
    answers = _answers(spec, spec)
    assert len(answers) == 1
    assert answers[0].startswith(f"nets:build: nets.py:{LINE}: roll makes the logits")


def test_a_plug_in_that_exits_is_refused_with_its_line(tmp_path: Path) -> None:
    spec = with_network(tmp_path / "plugins", "raise SystemExit(0)")
    assert _answers(spec) == [f"nets:build: nets.py:{LINE}: SystemExit: 0"]
