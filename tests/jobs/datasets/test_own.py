"""Data sets of a user's own: an .npz file, a folder of images, a function."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.datasets import _own as own
from jobs.datasets import dataset_info, load_images
from jobs.datasets._own import described
from jobs.errors import ConfigError, DataError
from jobs.plugins import Plugin, loading
from tests.trees import make_tree

FUNCTION = """
import numpy as np
from jobs.datasets import ArrayImages

def stripes(split):
    return ArrayImages(levels=np.arange(4 * 2 * 16, dtype=np.uint8).reshape(4, 2, 4, 4), labels=np.arange(4) % 2)
"""


def _arrays(**change: Any) -> dict[str, Any]:
    random = np.random.default_rng(0)
    found = {
        name: random.integers(0, 256, size=(size, 5, 4, 3), dtype=np.uint8)
        for name, size in (("x_train", 12), ("x_test", 6))
    }
    labels = {"y_train": np.arange(12, dtype=np.uint8) % 3, "y_test": np.arange(6, dtype=np.uint8)[:, None] % 3}
    return {name: value for name, value in {**found, **labels, **change}.items() if value is not None}


def _npz(folder: Path, **change: Any) -> Path:
    np.savez(folder / "My-Faces.npz", **_arrays(**change))
    return folder / "My-Faces.npz"


def _load(plugin: Plugin, split: Any, path: Path | None) -> Any:
    return load_images(plugin, split, {} if path is None else {plugin.label: str(path)})


def test_an_npz_file_is_a_data_set_with_nothing_to_write(tmp_path: Path) -> None:
    path = _npz(tmp_path)
    plugin = described(f"npz:{path}", 1, {})
    info = dataset_info(plugin)
    assert (plugin.name, info.name, info.num_classes, info.image_shape) == ("npz:my_faces", "my_faces", 3, (3, 5, 4))
    assert (dict(info.num_images), info.num_levels) == ({"train": 12, "test": 6}, 255)
    assert (info.augmentation, info.mean, info.std) == ("none", (0.5,) * 3, (0.5,) * 3)
    test = _load(plugin, "test", path)
    assert np.array_equal(test.pixels(), _arrays()["x_test"].transpose(0, 3, 1, 2))
    assert test.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert np.array_equal(test.image(2), np.float32(_arrays()["x_test"][2].transpose(2, 0, 1)) / np.float32(255))
    # Where it lies is not part of it.
    (tmp_path / "elsewhere").mkdir()
    assert described(f"npz:{shutil.copy(path, tmp_path / 'elsewhere')}", 1, {}) == plugin
    assert described(f"npz:{path}", 1, {"augmentation": "crop_flip"}).options["augmentation"] == "crop_flip"


@pytest.mark.parametrize(
    "change",
    [
        {"x_train": _arrays()["x_train"].transpose(0, 3, 1, 2), "x_test": _arrays()["x_test"].transpose(0, 3, 1, 2)},
        {
            "train_images": _arrays()["x_train"],
            "train_labels": _arrays()["y_train"].astype(np.int64),
            "test_images": _arrays()["x_test"],
            "test_labels": _arrays()["y_test"],
            **dict.fromkeys(_arrays()),
        },
    ],
)
def test_both_orders_of_channels_and_the_names_of_medmnist_are_read(change: dict[str, Any], tmp_path: Path) -> None:
    assert described(f"npz:{_npz(tmp_path, **change)}", 1, {}) == described(f"npz:{_npz(tmp_path)}", 1, {})


def test_images_of_one_channel_need_no_axis_for_it(tmp_path: Path) -> None:
    grey = {name: _arrays()[name][..., 0] for name in ("x_train", "x_test")}
    assert dataset_info(described(f"npz:{_npz(tmp_path, **grey)}", 1, {})).image_shape == (1, 5, 4)


def test_to_certify_no_training_images_are_needed(tmp_path: Path) -> None:
    plugin = described(f"npz:{_npz(tmp_path, x_train=None, y_train=None)}", 1, {})
    assert dict(dataset_info(plugin).num_images) == {"train": 0, "test": 6}
    with pytest.raises(ConfigError, match=r"faces\.npz: has no train images"):
        own.OwnData(plugin=plugin).check(Path("faces.npz"), ["train", "test"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"x_test": _arrays()["x_test"] / 255},
            r"got float64: they look like pixels in \[0, 1\]; multiply",
        ),
        ({"x_test": _arrays()["x_test"].astype(np.uint16)}, "pixels must be uint8 from 0 to 255, got uint16"),
        ({"x_test": _arrays()["x_test"].reshape(6, 60)}, r"images have shape \(60,\), expected \(H, W\), \(H, W, C\)"),
        (
            {"x_test": _arrays()["x_test"][:, :4]},
            r"train split: pixels have shape \(12, 3, 5, 4\), expected",
        ),
        ({"y_test": np.arange(6) - 1}, "labels must be from 0 to 4, got -1 to 4"),
        ({"y_test": np.zeros(6)}, r"labels must be int64 of shape \(N,\), got float64"),
        (
            {"y_test": np.eye(6, dtype=np.int64)},
            r"labels must be int64 of shape \(N,\), got int64 of",
        ),
        ({"y_train": np.arange(12) % 3 + 1}, None),
        ({"y_train": np.arange(12) % 3 + 1, "y_test": np.ones(6, int)}, "there is no image of class 0"),
        ({"y_train": np.zeros(12, int), "y_test": np.zeros(6, int)}, "there is only one class"),
        ({"y_test": np.arange(5)}, r"pixels have shape \(6, 3, 5, 4\), expected \(5, 3, 5, 4\)"),
        ({"x_test": None}, "contains x_train, y_train, y_test; expected x_train, y_train, x_test and y_test"),
        ({"x_test": np.zeros((0, 5, 4, 3), np.uint8), "y_test": np.zeros(0, int)}, "has no test images"),
        ({"x_test": np.array([{}] * 6)}, "not a valid .npz file .Object arrays cannot be loaded"),
    ],
)
def test_what_cannot_be_used_is_refused(change: dict[str, Any], message: str | None, tmp_path: Path) -> None:
    path = _npz(tmp_path, **change)
    if message is None:
        assert dataset_info(described(f"npz:{path}", 1, {})).num_classes == 4
        return
    with pytest.raises(ConfigError, match=message) as caught:
        described(f"npz:{path}", 1, {})
    assert all(str(path) in problem for problem in caught.value.problems)


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])


def _text(path: Path) -> None:
    path.write_text("hello")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncated, "not a valid .npz file"),
        (_text, "not a valid .npz file"),
        (_folder, "cannot be read .Is a directory"),
        (Path.unlink, "cannot be read .No such file"),
    ],
)
def test_a_file_that_is_no_npz_is_refused(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    path = _npz(tmp_path)
    damage(path)
    with pytest.raises(ConfigError, match=message):
        described(f"npz:{path}", 1, {})


def test_a_small_file_that_unpacks_to_more_than_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _npz(tmp_path)
    monkeypatch.setattr(own, "_MAX_BYTES", 1000)
    with pytest.raises(ConfigError, match="unpacked, at most"):
        described(f"npz:{path}", 1, {})


def test_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        described(f"npz:{_npz(tmp_path)}", 1, {"augment": "flip", "augmentation": "resized_crop_flip"})
    assert [problem.partition(": ")[2].partition(";")[0] for problem in caught.value.problems] == [
        "unknown option 'augment' (did you mean 'augmentation'?)",
        "unknown augmentation 'resized_crop_flip' (did you mean 'crop_flip'?)",
    ]


@pytest.mark.parametrize("test_folder", ["test", "val", "validation"])
def test_a_folder_is_a_data_set_with_nothing_to_write(test_folder: str, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "faces", per_class={"train": 2, test_folder: 1}, size=(6, 5), classes=("a", "b"))
    plugin = described(f"folder:{tree}", 1, {})
    info = dataset_info(plugin)
    assert (plugin.name, info.num_classes, info.image_shape) == ("folder:faces", 2, (3, 5, 6))
    assert dict(info.num_images) == {"train": 4, "test": 2}
    images = _load(plugin, "test", tree)
    assert images.labels.tolist() == [0, 1]
    with Image.open(tree / test_folder / "b" / "0000.png") as image:
        assert np.array_equal(images.pixels_of(1), np.asarray(image).transpose(2, 0, 1))
    Image.new("RGB", (6, 5)).save(tree / test_folder / "b" / "0000.png")
    with pytest.raises(DataError, match=r"its test images have fingerprint content:.* at the launch; restore them"):
        _load(plugin, "test", tree)


def test_a_folder_of_test_images_alone_can_be_certified(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "faces", per_class={"val": 1}, size=(6, 5), classes=("a", "b"))
    assert dict(dataset_info(described(f"folder:{tree}", 1, {})).num_images) == {"train": 0, "test": 2}


def _enlarge_test_images(tree: Path) -> None:
    for path in tree.glob("test/*/*.png"):
        Image.new("RGB", (9, 9)).save(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda tree: shutil.rmtree(tree), "contains no folders; expected"),
        (lambda tree: (tree / "test").rename(tree / "tset"), "has no test images"),
        (lambda tree: (tree / "test" / "b").rename(tree / "test" / "c"), "classes differ between the splits"),
        (lambda tree: Image.new("RGB", (7, 5)).save(tree / "train" / "a" / "x.png"), "7 x 5 pixels, expected 6 x 5"),
        (lambda tree: (tree / "test" / "a" / "0000.png").write_text("x"), "broken image, cannot be decoded"),
        (
            _enlarge_test_images,
            r"train split: images have shape \(3, 5, 6\), expected \(3, 9, 9\)",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(spoil: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "faces", per_class={"train": 2, "test": 1}, size=(6, 5), classes=("a", "b"))
    spoil(tree)
    with pytest.raises(ConfigError, match=message):
        described(f"folder:{tree}", 1, {})


def test_a_function_that_returns_its_images_is_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "mydata.py").write_text(FUNCTION)
    loading.use(tmp_path)
    try:
        plugin = described("mydata:stripes", 2, {})
        info = dataset_info(plugin)
        assert (plugin.version, info.name, info.image_shape, info.num_classes) == (2, "stripes", (2, 4, 4), 2)
        assert _load(plugin, "train", None).labels.tolist() == [0, 1, 0, 1]
        changed = Plugin(name=plugin.name, options={**plugin.options, "fingerprints": {"train": "0", "test": "0"}})
        with pytest.raises(DataError, match=r"mydata:stripes: its test images have fingerprint"):
            _load(changed, "test", None)
    finally:
        loading.use(None)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return None", "must return jobs.datasets.ArrayImages, not NoneType"),
        ("return ArrayImages(levels=np.zeros((0, 1, 2, 2), np.uint8), labels=np.zeros(0, int))", "has no train images"),
        ("return ArrayImages(levels=[[[0]]], labels=[0])", "levels and labels must be arrays of numpy"),
        (
            "levels = np.random.default_rng().integers(0, 256, (2, 1, 9, 9)).astype(np.uint8)\n"
            "    return ArrayImages(levels=levels, labels=np.arange(2))",
            "returned other train images when it was called again",
        ),
    ],
)
def test_a_function_that_gives_something_else_is_refused(body: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "otherdata.py").write_text(f"{FUNCTION}\n\ndef wrong(split):\n    {body}\n")
    loading.use(tmp_path)
    try:
        with pytest.raises(ConfigError, match=message):
            described("otherdata:wrong", 1, {})
    finally:
        loading.use(None)
