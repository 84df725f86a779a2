"""Objectives and networks of a user's own, from a folder of theirs to records, and what can be wrong with them."""

import importlib
import json
import shutil
import signal
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from analysis.load import load_grid
from configs.entry import run_command
from jobs.errors import ConfigError
from jobs.files import records
from jobs.files.failures import failures_of
from jobs.files.manifest import read_manifest
from jobs.files.store import Store
from jobs.networks.checkpoint import load_classifier
from jobs.plugins import loading
from jobs.plugins.files import write_files
from jobs.predict import predict
from jobs.specs.indices import partition
from jobs.specs.train import TrainSpec
from jobs.specs.units import ShardUnit, TrainUnit
from pipeline import estimate, sources
from pipeline.launch import launch
from pipeline.request import plugins as request
from tests.grids import finished_files, grid_records, tiny

LOSSES = """
    from dataclasses import dataclass

    from torch.nn.functional import cross_entropy


    @dataclass(frozen=True, kw_only=True)
    class Weighted:
        weight: float = 1.0

        def __call__(self, networks, batch, generator):
            if EPOCH == batch.epoch:
                raise ValueError("three")
            logits_MBK = networks.noisy_logits(batch)
            return self.weight * cross_entropy(logits_MBK[0], batch.labels_B, reduction="none")


    @dataclass
    class Thawed:
        def __call__(self, networks, batch, generator): ...
"""
NETS = """
    from torch import nn


    def build(info, width=4):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, info.num_classes))
"""
MIXING = """
    from torch import nn


    class Mixed(nn.Module):
        def forward(self, x):
            return (x + x.mean(0)).flatten(1)


"""
DRIFTING = """
    from torch import nn


    class Drifting(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += not self.training
            return (-1 if len(x) and self.calls > 15 else 1) * x.flatten(1)  # len: cannot be traced


"""
BLOCKS = (
    "grid.blocks=[{method: gaussian, sigma: 0.25, m_train: 2, objective: 'mylab.losses:Weighted', "
    "objective.weight: [1, 2.0]}, {method: gaussian, sigma: 0.25, architecture: 'mylab.nets:build', model.width: 8}]"
)


@pytest.fixture(autouse=True)
def _ask_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Questions about plug-ins answered in this process, which has torch already."""

    def ask(module: str, contents: Mapping[str, bytes], question: Sequence[Any], **_: Any) -> list[Any]:
        folder = tmp_path / "asked"
        shutil.rmtree(folder, ignore_errors=True)
        write_files(contents, folder / "plugins")
        (folder / "question.json").write_text(json.dumps(list(question)), encoding="utf-8")
        importlib.import_module(module).main(folder)
        loading.use(None)
        answers: list[Any] = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
        return answers

    monkeypatch.setattr(request, "ask", ask)
    monkeypatch.setattr(sources, "ask", ask)
    monkeypatch.setattr(estimate, "ask", ask)
    monkeypatch.chdir(tmp_path)
    yield
    loading.use(None)


@pytest.fixture
def mylab(tmp_path: Path) -> Path:
    folder = tmp_path / "mylab"
    folder.mkdir()
    (folder / "__init__.py").touch()
    write(folder / "losses.py", LOSSES.replace("EPOCH", "-1"))
    write(folder / "nets.py", NETS)
    return folder


def write(path: Path, text: str, more: str = "") -> None:
    path.write_text(textwrap.dedent(text).lstrip("\n") + more)


def _launch(results: Path, *more: str) -> int:
    return run_command("launch", launch, tiny(results, "cluster=debug", BLOCKS, "plugins=[mylab]", *more))


def test_a_users_own_objective_and_network_are_trained_and_certified(
    mylab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Path("results")
    assert _launch(results) == 0
    store, table = Store(results), grid_records(results)
    assert table.num_rows == 3 * 21
    assert sorted(set(table["method"].to_pylist())) == ["gaussian", "weighted"]
    runs = read_manifest(store.manifest_path("tiny")).runs
    assert [run.train.objective and run.train.objective.options for run in runs] == [
        {"weight": 1.0},
        {"weight": 2.0},
        None,
    ]
    assert runs[0].train.key.startswith("digits-weighted-s0.25-m2-")
    assert runs[2].train.model is not None
    assert runs[2].train.model.options == {"width": 8}
    for run in runs:
        (indices, *_) = store.finished_shards(run.place)
        metadata = records.read_metadata(store.shard_path(run.place, indices))
        assert metadata["plugins"].startswith('{"mylab":["')
    before = finished_files(results)
    write(mylab / "losses.py", LOSSES.replace("EPOCH", "-1"), "\n# a comment\n")
    capsys.readouterr()
    assert _launch(results) == 0
    assert "nothing to do: the grid is complete" in capsys.readouterr().out
    assert finished_files(results) == before
    # Another version is another model.
    write(mylab / "losses.py", LOSSES.replace("EPOCH", "-1"), "\nVERSION = 2\n")
    assert _launch(results, "dry_run=true") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["train", "models", "3", "1", "2"] in rows


def test_two_versions_of_the_files_under_one_key_are_refused(mylab: Path) -> None:
    results = Path("results")
    assert _launch(results) == 0
    store = Store(results)
    run = read_manifest(store.manifest_path("tiny")).runs[2]
    (first, *_) = store.finished_shards(run.place)
    store.shard_path(run.place, first).unlink()
    before = finished_files(results)
    write(mylab / "nets.py", NETS, "\n# edited\n")
    assert _launch(results) == 1
    (path,) = store.grid_failures_dir("tiny").glob("*.json")
    text = path.read_text()
    assert "different files of the plug-in mylab" in text
    assert "raise its VERSION" in text
    assert before.items() <= finished_files(results).items()


def test_a_network_whose_files_changed_answers_no_question(mylab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, image = mylab.parent / "results", mylab.parent / "0.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(image)
    assert _launch(results, "grid.blocks=[{method: gaussian, sigma: 0.25, architecture: 'mylab.nets:build'}]") == 0
    key = read_manifest(Store(results).manifest_path("tiny")).runs[0].train.key
    asked = [f"run={key}", f"source={image}", f"results={results}", f"plugins={mylab.parent}"]
    assert run_command("predict", predict, asked) == 0
    loading.use(None)
    write(mylab / "nets.py", NETS, "# edited\n")
    capsys.readouterr()
    assert run_command("predict", predict, asked) == 2
    assert "made with other files of the plug-in mylab" in capsys.readouterr().err


def test_a_failure_names_the_line_and_its_siblings_go_on(mylab: Path) -> None:
    results = Path("results")
    write(mylab / "losses.py", LOSSES.replace("EPOCH", "(1 if self.weight == 2 else -1)"))
    assert _launch(results) == 1
    store = Store(results)
    # The preflight takes the first and the last epoch: the failure is in the middle.
    runs = read_manifest(store.manifest_path("tiny")).runs
    assert [store.is_trained(run.train.key) for run in runs] == [True, False, True]
    (failure,) = failures_of(store, TrainUnit(train=runs[1].train))
    assert failure.message == "mylab/losses.py:12: ValueError: three"
    before = finished_files(results)
    assert len(store.finished_shards(runs[0].place)) == 3
    write(mylab / "losses.py", LOSSES.replace("EPOCH", "-1"))
    assert _launch(results) == 1
    # Epoch 0 was trained with other files.
    assert (
        "made with other files of the plug-in mylab" in failures_of(store, TrainUnit(train=runs[1].train))[-1].message
    )
    shutil.rmtree(store.state_dir(runs[1].train.key))
    assert _launch(results, "retry=all") == 0
    assert before.items() <= finished_files(results).items()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["plugins=[mylabb]"], "plugins: unknown package or folder 'mylabb' (did you mean 'mylab'?); write the path"),
        (["plugins=[analysi]"], "plugins: unknown package or folder 'analysi'; write the path of a folder"),
        (["plugins=[]"], "mylab.losses:Weighted: unknown plug-in 'mylab'"),
        ([BLOCKS.replace("losses:", "loses:")], "there is no module 'mylab.loses' in it"),
        (
            [BLOCKS.replace("Weighted", "Wieghted")],
            "has no such class or function: unknown name 'Wieghted' (did you mean",
        ),
        ([BLOCKS.replace("objective.weight", "objective.wait")], "unknown key 'wait' (did you mean 'weight'?)"),
        (
            [BLOCKS.replace("[1, 2.0]", "much")],
            "mylab.losses:Weighted.weight: input should be a valid number, got 'much'",
        ),
        (
            [BLOCKS.replace("Weighted", "cross_entropy")],
            "cross_entropy must be a frozen dataclass with a method __call__",
        ),
        (
            [BLOCKS.replace("Weighted", "Thawed")],
            "mylab.losses:Thawed (mylab/losses.py:17) must be frozen: write",
        ),
        (["plugins=[versions]"], "must be a whole number from 1, got '2'"),
        ([BLOCKS.replace("model.width", "model.with")], "unknown option 'with' (did you mean 'width'?)"),
        (
            [BLOCKS.replace("objective: 'mylab.losses:Weighted', ", "")],
            "objective.weight: has no effect without your own objective",
        ),
        ([BLOCKS.replace("mylab.losses:Weighted", "os:getcwd")], "unknown plug-in 'os'; valid: mylab"),
        ([BLOCKS.replace("mylab.nets:build", "torchvision:resnet81")], "unknown model 'resnet81' (did you mean"),
    ],
)
def test_what_cannot_be_plugged_in_is_said_before_anything_is_written(
    more: list[str], message: str, mylab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(mylab, Path("versions") / "mylab")
    write(Path("versions") / "mylab" / "nets.py", NETS, 'VERSION = "2"\n')
    assert _launch(Path("results"), *more) == 2
    assert message in capsys.readouterr().err
    assert not Path("results").exists()


def test_a_plug_in_that_does_not_import_is_refused_with_its_line(
    mylab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(mylab / "losses.py", "x = 1\ny = x / 0\n")
    assert _launch(Path("results")) == 2
    assert "mylab.losses:Weighted: mylab/losses.py:2: ZeroDivisionError" in capsys.readouterr().err
    write(mylab / "losses.py", "x = 1\ny = = 0\n")
    assert _launch(Path("results")) == 2
    assert "mylab/losses.py:2: SyntaxError" in capsys.readouterr().err


def test_a_network_that_would_break_the_certificate_is_refused(mylab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(mylab / "nets.py", MIXING + NETS.replace("nn.Flatten()", "Mixed()"))
    assert _launch(Path("results")) == 2
    assert "mylab.nets:build: mylab/nets.py:6: add makes the logits of an image depend on" in capsys.readouterr().err
    assert not Path("results").exists()


def test_a_network_that_changes_while_it_is_certified_fails_there(mylab: Path) -> None:
    write(mylab / "nets.py", DRIFTING + NETS.replace("nn.Flatten()", "Drifting()"))
    assert _launch(Path("results"), "cluster.save_every_s=1e-6") == 1
    store = Store(Path("results"))
    run = read_manifest(store.manifest_path("tiny")).runs[2]
    assert store.is_trained(run.train.key)
    assert not store.finished_shards(run.place)
    assert not store.partial_shards(run.place), "what it certified before is not taken up again"
    unit = ShardUnit(run=run, indices=partition(run.indices, 7)[0])
    (failure,) = failures_of(store, unit)
    assert "the same 1000 noisy images got different votes before and after the shard" in failure.message


def test_a_plug_in_that_the_machine_does_not_see_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is missing or not visible from this machine"):
        loading.use(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["jobs", "json", "torch"])
def test_a_plug_in_must_not_stand_in_front_of_something_else(
    name: str, mylab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(mylab, Path("own") / name)
    assert _launch(Path("results"), f"plugins=[own/{name}]") == 2
    assert "which is imported here; rename it" in capsys.readouterr().err


def test_an_npz_file_is_trained_on_certified_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = (labels[:, None, None] * 80 + random.integers(0, 40, size=(60, 8, 8))).astype(np.uint8)
    np.savez("Stripes.npz", x_train=images, y_train=labels, x_test=images[:12], y_test=labels[:12])
    results = Path("results")
    options = ["data=npz:Stripes.npz", "certify.indices=[9,0,4]", "certify.noise=exact_grid", "plugins=[]"]
    blocks = "grid.blocks=[{method: gaussian, sigma: 0.25}]"
    assert _launch(results, blocks, *options) == 0
    store, table = Store(results), grid_records(results)
    assert set(table["dataset"].to_pylist()) == {"stripes"}
    assert table["index"].to_pylist() == [0, 4, 9]
    (run,) = read_manifest(store.manifest_path("tiny")).runs
    assert run.train.key.startswith("stripes-gaussian-s0.25-")
    assert run.train.info.image_shape == (1, 8, 8)
    (model,) = load_grid(store, "tiny").models
    assert 0 < model.total_variation < 1e-9
    before = finished_files(results)
    # Another place, another way to write it: the same data set.
    shutil.move("Stripes.npz", tmp_path / "results" / "stripes.npz")
    capsys.readouterr()
    in_blocks = "grid.blocks=[{method: gaussian, sigma: 0.25, dataset: 'npz:results/stripes.npz'}]"
    assert _launch(results, in_blocks, *options[1:]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert finished_files(results) == before
    # Other images: another data set.
    np.savez("results/stripes.npz", x_train=images, y_train=labels, x_test=images[1:13], y_test=labels[1:13])
    assert _launch(results, in_blocks, *options[1:], "dry_run=true") == 0
    assert ["train", "models", "1", "0", "1"] in [line.split() for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["data=npz:nowhere.npz"], "nowhere.npz: cannot be read (No such file or directory)"),
        (["data=stripes.npz"], "data=stripes.npz: write npz:PATH, folder:PATH or module:function, or data.NAME=PATH"),
        (["data=npz:digits.npz"], "npz:digits cannot be named digits: this package has a data set of that name"),
        (
            ["data=npz:a.npz", "grid.blocks=[{method: gaussian, sigma: 0.25, dataset: digits}]"],
            "data=npz:a.npz has no effect, because blocks name data sets: grid.blocks[0]",
        ),
        (
            ["grid.blocks=[{method: gaussian, sigma: 0.25, dataset: ['npz:a.npz', 'npz:b/a.npz']}]"],
            "two data sets are called a: ",
        ),
        (["data=npz:test.npz", "certify.indices.stop=2"], "test.npz: has no train images"),
        (["data=npz:dark.npz"], "dark.npz: the largest pixel is 16, but white is 255; scale the images"),
        (["train.dataset=digit"], "unknown dataset 'digit' (did you mean 'digits'?)"),
    ],
)
def test_a_data_set_that_cannot_be_used_is_said_before_anything_is_written(
    more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = {"x_test": np.full((2, 8, 8), 255, np.uint8), "y_test": np.arange(2)}
    np.savez("test.npz", **arrays)  # type: ignore[arg-type]
    Path("b").mkdir()
    np.savez("dark.npz", x_test=np.full((2, 8, 8), 16, np.uint8), y_test=np.arange(2))
    for name in ("digits.npz", "a.npz", "b/a.npz"):
        np.savez(name, x_train=arrays["x_test"], y_train=arrays["y_test"], **arrays)  # type: ignore[arg-type]
    assert _launch(Path("results"), "grid.blocks=[{method: gaussian, sigma: 0.25}]", "plugins=[]", *more) == 2
    assert message in capsys.readouterr().err
    assert not Path("results").exists()


DENOISER = """
    import torch
    from torch import nn


    class Shrink(nn.Module):
        def __init__(self, gain):
            super().__init__()
            self.gain = nn.Parameter(torch.tensor([gain]))

        def forward(self, x):
            return 0.3 + self.gain * (x - 0.3)


    def denoiser(info, sigma, slope=1.0):
        return Shrink(slope / (1 + sigma**2))


    def mixing(info, sigma):
        class Mixing(nn.Module):
            def forward(self, x):
                return x - x.mean(0)

        return Mixing()
"""
SHORT = ["train.epochs=1", "certify.n=100", "certify.indices.stop=4", "cluster.num_shards=1"]


@dataclass(frozen=True)
class Composer:
    """Launches compositions of two finished models, in the current folder."""

    capsys: pytest.CaptureFixture[str]
    members: Sequence[TrainSpec]
    store = Store(Path("results"))

    def __call__(self, model: str, *more: str) -> int:
        self.capsys.readouterr()
        return _launch(self.store.root, f"grid.blocks=[{{{model}}}]", "grid.name=composed", *SHORT, *more)

    def problem(self, model: str) -> str:
        assert self(model) == 2
        return self.capsys.readouterr().err

    def model(self) -> TrainSpec:
        """The one that was composed."""
        (run,) = read_manifest(self.store.manifest_path("composed")).runs
        return run.train

    def logits(self, spec: TrainSpec, inputs_BCHW: torch.Tensor) -> torch.Tensor:
        loading.use(Path("asked/plugins"))
        trained = load_classifier(self.store.checkpoint_path(spec.key), spec, torch.device("cpu"))
        loading.use(None)
        logits_BK: torch.Tensor = trained.classifier(inputs_BCHW)
        return logits_BK


@pytest.fixture
def compose(mylab: Path, capsys: pytest.CaptureFixture[str]) -> Composer:
    write(mylab / "denoisers.py", DENOISER)
    seeds = "grid.blocks=[{method: gaussian, sigma: 0.25, seed: [0, 1], architecture: 'mylab.nets:build'}]"
    assert _launch(Composer.store.root, seeds, *SHORT) == 0
    return Composer(capsys, [run.train for run in read_manifest(Composer.store.manifest_path("tiny")).runs])


def test_finished_runs_are_an_ensemble_without_any_training(compose: Composer) -> None:
    one, other = (member.key for member in compose.members)
    before = finished_files(compose.store.root)
    assert f"ensemble:{one}: write two or more different runs" in compose.problem(f"model: 'ensemble:{one}'")
    assert f"ensemble:{one}+{one}: write two or more different" in compose.problem(f"model: 'ensemble:{one}+{one}'")
    missing = compose.problem(f"model: 'ensemble:{one}+x'")
    assert "results/runs/x/checkpoint.pt is missing or damaged; finish" in missing
    found = compose.problem(f"model: 'ensemble:{one}+{other}', sigma: 0.5, m_train: 2")
    assert "sigma has no effect on an ensemble" in found
    assert "m_train has no effect on an ensemble" in found
    assert compose(f"model: 'ensemble:{other}+{one}'", "dry_run=true") == 0
    assert ["train", "models", "1", "1", "0"] in [line.split() for line in compose.capsys.readouterr().out.splitlines()]
    assert finished_files(compose.store.root) == before
    assert compose(f"model: 'ensemble:{other}+{one}'") == 0
    assert "checking the plug-ins of 1 model" in compose.capsys.readouterr().out
    ensemble, inputs = compose.model(), torch.rand(3, 1, 8, 8)
    assert ensemble.key.startswith("digits-ensemble-s0.25-")
    assert {member.key for member in ensemble.members} == {one, other}
    assert grid_records(compose.store.root, "composed")["method"].to_pylist() == ["ensemble"] * 4
    logits = [compose.logits(member, inputs) for member in compose.members]
    torch.testing.assert_close(compose.logits(ensemble, inputs), (logits[0] + logits[1]) / 2)
    finished = finished_files(compose.store.root)
    assert before.items() <= finished.items()
    assert compose(f"model: 'ensemble:{one}+{other}'") == 0
    assert "nothing to do" in compose.capsys.readouterr().out
    assert finished_files(compose.store.root) == finished


def test_a_finished_run_stands_behind_a_denoiser_with_weights_of_its_own(compose: Composer) -> None:
    before, member, inputs = finished_files(compose.store.root), compose.members[0], torch.rand(3, 1, 8, 8)
    torch.save({"gain": torch.tensor([0.75])}, "gain.pt")
    given = f"method: gaussian, sigma: 0.5, architecture: 'mylab.nets:build', weights: 'run:{member.key}'"
    behind = f"{given}, denoiser: 'mylab.denoisers:denoiser', denoiser.slope: 0.9, denoiser_weights: gain.pt"
    assert compose(behind) == 0
    denoised = compose.model()
    assert denoised.key.startswith("digits-denoised-s0.50-")
    assert denoised.denoiser is not None
    assert denoised.denoiser.options == {"slope": 0.9}
    expected = compose.logits(member, 0.3 + 0.75 * (inputs - 0.3))
    torch.testing.assert_close(compose.logits(denoised, inputs), expected)
    assert before.items() <= finished_files(compose.store.root).items()
    assert "denoiser_weights: cannot read nothing.pt" in compose.problem(behind.replace("gain.pt", "nothing.pt"))
    assert "unknown option 'slop'" in compose.problem(behind.replace("denoiser.slope", "denoiser.slop"))
    assert "denoiser_weights has no effect without a denoiser" in compose.problem(f"{given}, denoiser_weights: gain.pt")
    assert "needs a finished classifier" in compose.problem(behind.replace(f"weights: 'run:{member.key}', ", ""))
    mixing = f"{given}, denoiser: 'mylab.denoisers:mixing'"
    assert "mylab/denoisers.py:21: sub makes the logits of an image depend on" in compose.problem(mixing)


def test_a_dependency_that_the_node_does_not_have_fails_its_model_alone(mylab: Path) -> None:
    write(mylab / "nets.py", 'if "asked" not in __file__:\n    import no_such_library\n', textwrap.dedent(NETS))
    assert _launch(Path("results")) == 1
    store = Store(Path("results"))
    runs = read_manifest(store.manifest_path("tiny")).runs
    assert [store.is_trained(run.train.key) for run in runs] == [True, True, False]
    (failure,) = failures_of(store, TrainUnit(train=runs[2].train))
    assert failure.failure_class == "config"
    assert "mylab/nets.py:2: ModuleNotFoundError: No module named 'no_such_library'; install it" in failure.message


@pytest.mark.parametrize(
    ("raised", "exit_code"), [("SystemExit(0)", 1), ("KeyboardInterrupt", 1), ("KeyboardInterrupt", 130)]
)
def test_a_plug_in_that_ends_a_job_fails_its_model_alone(
    raised: str, exit_code: int, mylab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A worker of the pool ignores Ctrl-C, so that it was not pressed; here, it may have been. What a shell starts in
    # the background ignores it, too.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN if exit_code == 1 else signal.default_int_handler)
    where = LOSSES.replace("EPOCH", "(1 if self.weight == 2 else -1)")
    write(mylab / "losses.py", where.replace('ValueError("three")', raised))
    try:
        assert _launch(Path("results")) == exit_code
    finally:
        signal.signal(signal.SIGINT, handler)
    if exit_code == 130:
        assert capsys.readouterr().err.splitlines()[-1] == "interrupted; run the same command again to resume"
        return
    store = Store(Path("results"))
    runs = read_manifest(store.manifest_path("tiny")).runs
    assert [store.is_trained(run.train.key) for run in runs] == [True, False, True]
    (failure,) = failures_of(store, TrainUnit(train=runs[1].train))
    assert failure.message.startswith(f"mylab/losses.py:12: RuntimeError: ended by {raised.partition('(')[0]}(")


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("os.fork() or os._exit(0)", "a plug-in must not start processes"),
        ("torch.manual_seed(0)", "manual_seed sets the global random state"),
        ("torch.set_num_threads(7)", "set_num_threads changes a setting for the whole process"),
        ("os.chdir('/')", "chdir changes a setting for the whole process"),
    ],
)
def test_what_a_plug_in_may_not_do_fails_its_model_alone_where_the_preflight_has_not_been(
    statement: str, message: str, mylab: Path
) -> None:
    where = LOSSES.replace("EPOCH", "(1 if self.weight == 2 else -1)").replace('raise ValueError("three")', statement)
    write(mylab / "losses.py", f"import os\nimport torch\n{textwrap.dedent(where)}")
    before = torch.get_num_threads()
    assert _launch(Path("results")) == 1
    store = Store(Path("results"))
    runs = read_manifest(store.manifest_path("tiny")).runs
    assert [store.is_trained(run.train.key) for run in runs] == [True, False, True]
    (failure,) = failures_of(store, TrainUnit(train=runs[1].train))
    assert failure.message.startswith("mylab/losses.py:15: RuntimeError: ")
    assert message in failure.message
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_plug_in_that_floods_the_output_of_a_job_fails_its_model_alone(
    stream: str, mylab: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # The preflight takes the first and the last epoch.
    printed = f"print(n, file=__import__('sys').{stream})"
    flood = f"for n in range(1_000_000 if self.weight == 2 else 3):\n                    {printed}"
    write(mylab / "losses.py", LOSSES.replace("EPOCH", "1").replace('raise ValueError("three")', flood))
    assert _launch(Path("results")) == 1
    assert len(getattr(capfd.readouterr(), stream.removeprefix("std")).splitlines()) < 101_000
    store = Store(Path("results"))
    runs = read_manifest(store.manifest_path("tiny")).runs
    assert [store.is_trained(run.train.key) for run in runs] == [True, False, True]
    (failure,) = failures_of(store, TrainUnit(train=runs[1].train))
    assert "mylab/losses.py:13: RuntimeError: prints more than 100,000 lines in one unit" in failure.message
