from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from configs.composition import compose_config
from jobs import prepare
from jobs.datasets import cifar10_images, count_images, dataset_info, imagenet, load_images
from jobs.datasets._tree import Tree, TreeImages
from jobs.errors import ConfigError, DataError
from jobs.files.store import Store
from pipeline.launch import launch
from tests.trees import CLASSES, make_tree

NAME = "cifar10_images"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree", per_class={"train": 2, "test": 1})


def _data(folder: Path) -> dict[str, str | None]:
    return {NAME: str(folder)}


def test_order_labels_and_pixels_are_those_of_torchvision(tree: Path) -> None:
    (tree / "train" / "cat" / "notes.txt").write_text("not an image")
    ours, theirs = load_images(NAME, "train", _data(tree)), ImageFolder(str(tree / "train"))
    assert ours.labels.tolist() == theirs.targets
    for index, (image, _) in enumerate(theirs):
        assert np.array_equal(ours.pixels()[index], np.asarray(image).transpose(2, 0, 1))
        expected = transforms.functional.to_tensor(image)
        assert torch.equal(torch.from_numpy(ours.image(index)), expected)


@pytest.mark.parametrize("size", [(300, 260), (260, 500), (224, 224), (100, 333), (700, 501)])
def test_the_centre_view_is_resize_256_and_centre_crop_224(tmp_path: Path, size: tuple[int, int]) -> None:
    folder = make_tree(tmp_path, per_class={"train": 1, "val": 1}, size=size, classes=("a",))
    images = replace(imagenet.TREE, num_classes=1, num_images=None).open_split("test", folder)
    by_torchvision = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()])
    with Image.open(folder / "val" / "a" / "0000.png") as image:
        expected = by_torchvision(image.convert("RGB"))
    assert torch.equal(torch.from_numpy(images.image(0)), expected)


def test_the_folder_decides_how_many_images_there_are(tree: Path) -> None:
    assert count_images(NAME, "train", _data(tree)) == 20
    assert count_images(NAME, "test", _data(tree)) == 10
    assert count_images(NAME, "test", {}) == dataset_info(NAME).num_images["test"]


def test_other_files_are_other_images(tree: Path) -> None:
    before = load_images(NAME, "test", _data(tree)).fingerprint
    shutil.copy(tree / "test" / "cat" / "0000.png", tree / "test" / "cat" / "0001.png")
    assert load_images(NAME, "test", _data(tree)).fingerprint != before


def _problem(folder: Path) -> str:
    with pytest.raises((ConfigError, DataError)) as caught:
        prepare.prepare(NAME, _data(folder), Store(folder.parent / "results"))
    return str(caught.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert f"no folder {tmp_path / 'nowhere' / 'train'}" in _problem(tmp_path / "nowhere")


def test_classes_that_differ_are_named(tree: Path) -> None:
    (tree / "test" / "truck").rename(tree / "test" / "lorry")
    assert "classes differ between the splits: only in train: truck; only in test: lorry" in _problem(tree)


def test_a_wrong_number_of_classes_is_named(tree: Path) -> None:
    for split in ("train", "test"):
        shutil.rmtree(tree / split / "truck")
    assert "9 class folders, cifar10_images has 10 classes" in _problem(tree)


def test_a_class_without_images_is_named(tree: Path) -> None:
    (tree / "test" / "dog" / "0000.png").unlink()
    assert f"no image in {tree / 'test' / 'dog'}" in _problem(tree)


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_every_broken_image_is_named(tmp_path: Path, damage: str, suffix: str) -> None:
    tree = make_tree(tmp_path / "tree", per_class={"train": 2, "test": 1}, suffix=suffix)
    for class_name in ("cat", "ship"):
        path = tree / "train" / class_name / f"0001{suffix}"
        content = path.read_bytes()
        path.write_bytes({"cut": content[: len(content) // 2], "text": b"no image", "empty": b""}[damage])
    problem = _problem(tree)
    assert f"{tree / 'train' / 'cat' / f'0001{suffix}'}: broken image" in problem
    assert f"{tree / 'train' / 'ship' / f'0001{suffix}'}: broken image" in problem
    assert not (tmp_path / "results" / "data" / f"{NAME}.json").exists()


def test_an_image_of_another_size_is_named(tree: Path) -> None:
    Image.new("RGB", (31, 32)).save(tree / "train" / "frog" / "0001.png")
    assert f"{tree / 'train' / 'frog' / '0001.png'}: 31 x 32 pixels, expected 32 x 32" in _problem(tree)


def test_another_number_of_images_is_named_where_it_matters(tree: Path) -> None:
    strict = replace(cifar10_images.TREE, num_images={"train": 20, "test": 11})
    assert len(strict.list_files("train", tree)[0]) == 20
    with pytest.raises(ConfigError, match=f"10 images in {tree / 'test'}, cifar10_images has 11 there"):
        strict.list_files("test", tree)


def test_grey_images_become_colour(tree: Path) -> None:
    Image.new("L", (32, 32), color=7).save(tree / "test" / "airplane" / "0000.png")
    assert (load_images(NAME, "test", _data(tree)).pixels()[0] == 7).all()


def test_images_are_decoded_once_and_again_when_files_change(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, decoded = Store(tmp_path / "results"), list[int]()
    monkeypatch.setattr(TreeImages, "check_all", lambda self: decoded.append(len(self.paths)))
    prepare.prepare(NAME, _data(tree), store)
    prepare.prepare(NAME, _data(tree), store)
    assert decoded == [20, 10]
    shutil.copy(tree / "test" / "cat" / "0000.png", tree / "test" / "cat" / "0001.png")
    assert not prepare.is_prepared(NAME, _data(tree), store)


def test_the_launch_names_what_is_wrong_before_training(
    tree: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tree / "train" / "bird" / "0000.png"
    broken.write_bytes(b"")
    command = ["grid=cifar_images_quick", f"results={tmp_path / 'results'}", f"data.{NAME}={tree}", "cluster=debug"]
    with pytest.raises(ConfigError, match=f"{broken}: broken image"):
        launch(compose_config("launch", [*command, "certify.indices.stop=10"]))
    assert not (tmp_path / "results" / "runs").exists()
    assert f"preparing {NAME} in {tree}" in capfd.readouterr().out


def test_a_launch_without_the_folder_says_which_key_to_set(tmp_path: Path) -> None:
    command = ["grid=cifar_images_quick", f"results={tmp_path / 'results'}", f"data.{NAME}=null"]
    with pytest.raises(ConfigError, match=f"write data.{NAME}=PATH"):
        launch(compose_config("launch", command))
    assert not (tmp_path / "results").exists()


def test_entries_agree_with_their_trees() -> None:
    for module in (cifar10_images, imagenet):
        info, tree = module.INFO, module.TREE
        assert isinstance(tree, Tree)
        assert (info.name, info.num_classes, info.image_shape) == (tree.name, tree.num_classes, tree.image_shape)
    assert sorted(CLASSES) == list(CLASSES)  # label order of CIFAR-10 is that of the folders' names


def test_cifar10_that_is_not_there_is_an_error_of_the_worker(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not there or damaged; python -m jobs\.prepare cifar10"):
        load_images("cifar10", "test", {"cifar10": str(tmp_path)})
    assert not prepare.is_prepared("cifar10", {"cifar10": str(tmp_path)}, Store(tmp_path))
