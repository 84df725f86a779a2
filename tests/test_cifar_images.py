"""The quick CIFAR-10 grid, cut down, from image files to the envelope."""

import os
import shutil
from pathlib import Path

import pytest

from analysis.envelope import envelope
from configs.composition import compose_config
from pipeline.launch import launch
from tests.trees import CLASSES, make_tree

PER_CLASS = {"train": 12, "test": 4}
VARIABLE = "CIFAR10_IMAGES_DIR"


def _part_of_cifar10(folder: Path) -> Path:
    source = os.environ.get(VARIABLE)
    if not source:
        pytest.skip(f"no CIFAR-10 images: {VARIABLE} is not set (it names a folder with train/ and test/)")
    for split, count in PER_CLASS.items():
        for class_name in CLASSES:
            (folder / split / class_name).mkdir(parents=True)
            for path in sorted((Path(source) / split / class_name).iterdir())[:count]:
                shutil.copy(path, folder / split / class_name)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("images", ["cifar10", "colours"])
def test_a_cut_down_quick_grid_runs_to_its_envelope(
    images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tree"
    tree = _part_of_cifar10(folder) if images == "cifar10" else make_tree(folder, per_class=PER_CLASS)
    results = tmp_path / "results"
    command = [
        "grid=cifar_images_quick",
        f"data.cifar10_images={tree}",
        f"results={results}",
        "grid.blocks=[{method: gaussian, sigma: 0.25}, {method: smoothadv, attack: pgd, sigma: 0.25, "
        "epsilon: 0.5, m_train: [1, 2], num_steps: 2, warmup_epochs: 1}]",
        "train.epochs=2",
        "train.batch_size=32",
        "certify.n=100",
        "certify.indices.step=8",
        "cluster.max_workers=2",
    ]
    assert launch(compose_config("launch", command)) == 0
    assert "complete after" in capsys.readouterr().out
    assert launch(compose_config("launch", command)) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert envelope(compose_config("envelope", ["grid=cifar_images_quick", f"results={results}"])) == 0
    assert (results / "grids" / "cifar_images_quick" / "envelope" / "envelope.png").stat().st_size > 1000
