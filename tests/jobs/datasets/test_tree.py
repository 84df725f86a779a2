import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from configs.composition import compose_config
from jobs import prepare
from jobs.datasets import cifar10_images, count_images, dataset_info, differ, imagenet, load_images
from jobs.datasets._images import CONTENT
from jobs.datasets._tree import Tree, TreeImages
from jobs.errors import ConfigError, DataError
from jobs.files.store import Store
from pipeline.launch import launch
from tests.trees import CLASSES, make_tree, of_any_size

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
    images = of_any_size(imagenet.TREE, num_classes=1).open_split("test", folder)
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


def test_the_fingerprint_is_over_pixels_and_labels_whatever_the_files_are_called(tree: Path, tmp_path: Path) -> None:
    """Two trees with the same names are not the same images, and one with other names or another format may be."""
    renamed, other, relabelled = (Path(shutil.copytree(tree, tmp_path / name)) for name in ("a", "b", "c"))
    path = renamed / "test" / "cat" / "0000.png"
    with Image.open(path) as image:
        image.convert("RGB").save(path.with_name("first.bmp"))
    path.unlink()
    Image.new("RGB", (32, 32)).save(other / "test" / "cat" / "0000.png")
    for one, two in (("cat", "swap"), ("dog", "cat"), ("swap", "dog")):
        (relabelled / "test" / one).rename(relabelled / "test" / two)
    own, same, *others = (
        load_images(NAME, "test", _data(folder)).fingerprint for folder in (tree, renamed, other, relabelled)
    )
    assert own.startswith(CONTENT)
    assert same == own
    assert len({own, *others}) == 3


def test_the_fingerprint_is_kept_beside_the_tree_until_a_file_changes(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare.prepare(NAME, _data(tree), Store(tmp_path / "results"))
    own = load_images(NAME, "test", _data(tree)).fingerprint
    with monkeypatch.context() as patch:
        patch.setattr(TreeImages, "pixels_of", None)  # nothing is decoded
        assert load_images(NAME, "test", _data(tree)).fingerprint == own
    path = tree / "test" / "cat" / "0000.png"
    Image.new("RGB", (32, 32)).save(path)
    assert load_images(NAME, "test", _data(tree)).fingerprint != own


def test_a_tree_that_cannot_be_written_keeps_its_fingerprint_with_the_user(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tree / ".test.images.json").mkdir()  # root may write anywhere, but not replace a folder
    own = load_images(NAME, "test", _data(tree)).fingerprint
    monkeypatch.setattr(TreeImages, "pixels_of", None)
    assert load_images(NAME, "test", _data(tree)).fingerprint == own


def test_fingerprints_made_in_different_ways_are_not_compared() -> None:
    assert differ("content:a", "content:b")
    assert differ("a", "b")
    assert not differ("content:a", "a")
    assert not differ("content:a", "content:a")


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
    assert "9 class folders, but cifar10_images has 10 classes" in _problem(tree)


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
    strict = of_any_size(cifar10_images.TREE, any_size=False, num_images={"train": 20, "test": 11})
    assert len(strict.list_files("train", tree)[0]) == 20
    with pytest.raises(ConfigError, match=f"10 images in {tree / 'test'}, but cifar10_images has 11 there"):
        strict.list_files("test", tree)


def test_grey_images_become_colour(tree: Path) -> None:
    Image.new("L", (32, 32), color=7).save(tree / "test" / "airplane" / "0000.png")
    assert (load_images(NAME, "test", _data(tree)).pixels()[0] == 7).all()


def test_images_are_decoded_once_and_again_when_files_change(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, decoded, check_all = Store(tmp_path / "results"), list[int](), TreeImages.check_all

    def counted(images: TreeImages) -> str:
        decoded.append(len(images.paths))
        return check_all(images)

    monkeypatch.setattr(TreeImages, "check_all", counted)
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


def test_classes_are_numbered_as_those_of_the_original() -> None:
    assert sorted(CLASSES) == list(CLASSES)  # label order of CIFAR-10 is that of the folders' names


def test_cifar10_that_is_not_there_is_an_error_of_the_worker(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing or damaged; run python -m jobs\.prepare cifar10"):
        load_images("cifar10", "test", {"cifar10": str(tmp_path)})
    assert not prepare.is_prepared("cifar10", {"cifar10": str(tmp_path)}, Store(tmp_path))


def _of_imagenets_form(folder: Path) -> Tree:
    make_tree(folder, per_class={"train": 1, "val": 1}, size=(300, 260), classes=("n1", "n2"))
    return of_any_size(imagenet.TREE, num_classes=2)


def test_certification_needs_the_test_images_only(tmp_path: Path) -> None:
    tree = _of_imagenets_form(tmp_path / "tree")
    shutil.rmtree(tmp_path / "tree" / "train")
    tree.check(tmp_path / "tree", ("test",))
    tree.prepare(tmp_path / "tree", tmp_path / "marks")
    assert tree.is_prepared(tmp_path / "tree", tmp_path / "marks")
    assert len(tree.open_split("test", tmp_path / "tree").labels) == 2
    with pytest.raises(ConfigError, match=f"no folder {tmp_path / 'tree' / 'train'}"):
        tree.check(tmp_path / "tree", ("test", "train"))


def test_a_launch_that_certifies_only_needs_no_training_images(tmp_path: Path) -> None:
    """The data are looked at first: what is wrong is the checkpoint, as it would be with a complete tree."""
    tree = make_tree(tmp_path / "tree", per_class={"test": 1})
    (tmp_path / "checkpoint.pt").write_text("no checkpoint")
    command = ["grid=pretrained", f"train.checkpoint={tmp_path / 'checkpoint.pt'}", "model=cifar_resnet20"]
    command += [f"train.dataset={NAME}", f"data.{NAME}={tree}", "train.sigma=0.5", "train.method=gaussian"]
    with pytest.raises(ConfigError, match="is a text file"):
        launch(compose_config("launch", [*command, f"results={tmp_path / 'results'}", "certify.indices.step=1"]))


def _flatten(root: Path) -> None:
    for number, path in enumerate(sorted(root.glob("val/*/*"))):
        path.rename(root / "val" / f"{number}.png")
    for folder in root.glob("val/*/"):
        folder.rmdir()


def _number(root: Path) -> None:
    for split in ("train", "val"):
        (root / split / "n1").rename(root / split / "9")
        (root / split / "n2").rename(root / split / "10")


@pytest.mark.parametrize(
    ("change", "given", "message"),
    [
        (_flatten, "", r"val is flat: 2 images and no class folders"),
        (_number, "", r"numbers of different lengths \(10, 9, \.\.\.\), which sort as text"),
        (lambda root: (root / "val").rename(root / "validation"), "", "there is .*validation: rename it"),
        (lambda root: None, "val", r"This is one of them: write data\.imagenet=.*tree$"),
        (lambda root: None, "..", "They are in .*tree$"),
    ],
)
def test_a_tree_of_another_layout_is_named_for_what_it_is(
    tmp_path: Path, change: Callable[[Path], object], given: str, message: str
) -> None:
    folder = tmp_path / "data" / "tree"
    tree = _of_imagenets_form(folder)
    change(folder)
    with pytest.raises(ConfigError, match=message):
        tree.check((folder / given).resolve())


def test_grey_of_16_bits_is_scaled_to_8(tree: Path) -> None:
    levels = np.array([0, 128, 129, 257, 32768, 65535, 65407, 65406] * 128, dtype=np.uint16).reshape(32, 32)
    Image.fromarray(levels).save(tree / "test" / "airplane" / "0000.png")
    found = load_images(NAME, "test", _data(tree)).pixels()[0]
    assert found[:, 0, :8].tolist() == [[0, 0, 1, 1, 128, 255, 255, 254]] * 3


def test_pixels_of_unknown_range_are_refused(tree: Path) -> None:
    path = tree / "test" / "airplane" / "0000.png"
    path.unlink()
    Image.fromarray(np.zeros((32, 32), dtype=np.float32)).save(path.with_suffix(".tif"))
    assert "pixels of 32 bits, with an unknown range" in _problem(tree)


def test_a_decompression_bomb_is_an_error(tree: Path) -> None:
    Image.new("1", (10_000, 9_000)).save(tree / "train" / "frog" / "0001.png")
    assert "10000 x 9000 pixels are more than the limit" in _problem(tree)
