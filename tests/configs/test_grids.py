"""Every grid file composes and expands to what its header says."""

from collections import Counter
from pathlib import Path

import pytest

from configs.composition import compose_config
from configs.files import CONFIG_DIR, options_of
from jobs.specs.runs import Manifest
from pipeline.launch import launch
from pipeline.request.config import parse_launch

FILES = {"pretrained": [f"train.checkpoint={CONFIG_DIR / 'launch.yaml'}", "train.method=gaussian", "train.sigma=0.5"]}
"""What a grid needs on the command line (any file has a hash)."""


def _manifest(grid: str, *more: str) -> Manifest:
    return parse_launch(compose_config("launch", [f"grid={grid}", *FILES.get(grid, []), *more])).manifest


@pytest.mark.parametrize("grid", options_of("grid"))
def test_every_grid_expands(grid: str) -> None:
    manifest = _manifest(grid)
    assert manifest.grid == grid
    assert manifest.runs
    header = (CONFIG_DIR / "grid" / f"{grid}.yaml").read_text()
    assert f"# python -m pipeline.launch grid={grid}" in header
    assert "# Cost: " in header


@pytest.mark.parametrize("group", ["model", "train", "certify", "attack", "cluster", "grid"])
def test_every_option_begins_with_its_command(group: str) -> None:
    for path in (CONFIG_DIR / group).glob("*.yaml"):
        comments = [line for line in path.read_text().splitlines()[:3] if line.startswith("# python -m ")]
        assert comments, path


def test_cifar_full_is_the_papers_grid() -> None:
    runs = _manifest("cifar_full").runs
    assert Counter(run.train.method for run in runs) == {"smoothadv": 640, "gaussian": 4}
    assert {run.train.architecture for run in runs} == {"cifar_resnet110"}
    specs = [run.train for run in runs if run.train.method == "smoothadv"]
    assert {spec.m_train for spec in specs} == {1, 2, 4, 8}
    assert {spec.sigma for spec in specs} == {0.12, 0.25, 0.5, 1.0}
    assert {spec.epsilon for spec in specs} == {0.25, 0.5, 1.0, 2.0}
    assert {spec.num_steps for spec in specs} == {2, 4, 6, 8, 10}
    assert {spec.attack for spec in specs} == {"pgd", "ddn"}
    assert {(spec.batch_size, spec.epochs, spec.learning_rate, spec.lr_step_epochs) for spec in specs} == {
        (256, 150, 0.1, 50)
    }
    assert {spec.warmup_epochs for spec in specs} == {10}
    for run in runs:
        assert len(run.indices) == 500
        assert (run.certify.n0, run.certify.n, run.certify.alpha) == (100, 100_000, 0.001)
        assert run.certify.sigma_cert == run.train.sigma


def test_cifar_published_trains_as_the_published_code() -> None:
    specs = [run.train for run in _manifest("cifar_published").runs if run.train.method == "smoothadv"]
    assert len(specs) == len({spec.key for spec in specs}) == 384
    assert {spec.epsilon for spec in specs} == {epsilon / 256 for epsilon in (64, 127, 255, 512)}
    for spec in specs:
        assert spec.warmup == "published"
        assert spec.multi_noise == ("sub_batches" if spec.m_train > 1 else "paper")
        assert spec.ddn_initial_norm == ("epsilon" if spec.attack == "ddn" else 1.0)


def test_cifar_vanilla_is_appendix_c1() -> None:
    manifest = _manifest("cifar_vanilla")
    assert len({run.train.key for run in manifest.runs}) == 24
    vanilla = [run for run in manifest.runs if run.train.method == "vanilla"]
    assert len(vanilla) == 16
    assert {run.train.sigma for run in vanilla} == {0.0}
    assert {run.certify.sigma_cert for run in vanilla} == {0.12, 0.25, 0.5, 1.0}
    assert {run.train.num_steps for run in manifest.runs} == {0, 2}


def test_imagenet_full_is_the_papers_grid() -> None:
    runs = _manifest("imagenet_full").runs
    assert Counter((run.train.attack, run.train.num_steps) for run in runs) == {
        ("none", 0): 3,
        ("pgd", 1): 12,
        ("ddn", 2): 12,
    }
    assert {(run.train.batch_size, run.train.num_processes, run.train.epochs) for run in runs} == {(400, 4, 90)}
    assert {len(run.indices) for run in runs} == {500}


def test_grids_share_their_runs() -> None:
    full = {run.train.key for run in _manifest("cifar_full").runs}
    vanilla = {run.train.key for run in _manifest("cifar_vanilla").runs}
    assert len(full & vanilla) == 4  # Gaussian augmentation is trained once for both


def test_attacks_multiply_out_over_the_models() -> None:
    manifest = _manifest("digits", "attack=paper", "attack.m_test=[8,128]")
    assert len(manifest.of("attack")) == 30 * 17 * 2
    assert {len(run.indices) for run in manifest.of("attack")} == {25}
    assert all(run.task.sigma in (0.12, 0.25, 0.5) for run in manifest.of("attack"))


def test_a_dry_run_of_the_largest_grid_estimates_and_touches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    assert launch(compose_config("launch", ["grid=cifar_full", "dry_run=true", f"results={results}"])) == 0
    out = capsys.readouterr().out
    assert "644 models" in out
    assert "322,000" in out
    assert "about 4,160 GPU-hours (train 3,840, certify 320)" in out
    assert not results.exists()
