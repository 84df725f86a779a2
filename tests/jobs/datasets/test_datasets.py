import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from jobs.datasets import ArrayImages, dataset_info, dataset_module, dataset_names, load_images
from jobs.errors import ConfigError, DataError
from tests.trees import inputs_of


def test_digits_is_registered() -> None:
    assert "digits" in dataset_names()


def test_the_splits_are_disjoint_and_complete() -> None:
    train, test = load_images("digits", "train"), load_images("digits", "test")
    assert len(test.labels) == 500
    together = np.concatenate([inputs_of(train), inputs_of(test)]).reshape(1797, 64)
    everything = (load_digits().data / 16).astype(np.float32)
    assert np.array_equal(np.sort(together.view("V256").ravel()), np.sort(everything.view("V256").ravel()))


def test_digits_are_those_of_sklearn_in_its_order_without_its_import() -> None:
    expected, test, train = load_digits(), load_images("digits", "test"), load_images("digits", "train")
    in_test = 7919 * np.arange(1797) % 1797 < 500
    for images, chosen in ((test, in_test), (train, ~in_test)):
        assert np.array_equal(images.pixels(), expected.images[chosen, None])
        assert np.array_equal(images.labels, expected.target[chosen])
    program = "import sys; from jobs.datasets import load_images; load_images('digits', 'test'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert not {"sklearn", "scipy", "pandas", "torch"}.intersection(done.stdout.split())


def test_the_split_is_pinned() -> None:
    # Records name images by their index: another split would make old records lie.
    assert load_images("digits", "test").labels[:20].tolist() == [
        0,
        3,
        5,
        8,
        0,
        5,
        0,
        5,
        0,
        5,
        5,
        9,
        8,
        1,
        1,
        7,
        2,
        3,
        3,
        4,
    ]


def test_pixels_lie_in_the_unit_interval() -> None:
    inputs = inputs_of(load_images("digits", "train"))
    assert inputs.dtype == np.float32
    assert (inputs.min(), inputs.max()) == (0.0, 1.0)


def test_the_normalisation_is_the_training_set_s() -> None:
    info, inputs = dataset_info("digits"), inputs_of(load_images("digits", "train"))
    assert info.mean == pytest.approx([inputs.mean()], abs=5e-4)
    assert info.std == pytest.approx([inputs.std()], abs=5e-4)


def test_all_classes_are_in_both_splits() -> None:
    for split in ("train", "test"):
        counts = np.bincount(load_images("digits", split).labels, minlength=10)
        assert counts.min() >= 30


def test_an_unknown_dataset_names_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown dataset 'digit' \(did you mean 'digits'\?\)"):
        dataset_info("digit")


def _split(**change: Any) -> ArrayImages:
    values = {"levels": np.zeros((500, 1, 8, 8), np.uint8), "labels": np.zeros(500, np.int64), "num_levels": 16}
    return ArrayImages(**{**values, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"levels": np.full((500, 1, 8, 8), 0.5)},
            r"got float64: they look like pixels in \[0, 1\]; multiply by 16",
        ),
        ({"levels": np.full((500, 1, 8, 8), 7.0, np.float32)}, "pixels must be uint8 from 0 to 16, got float32$"),
        ({"levels": np.full((500, 1, 8, 8), 17, np.uint8)}, "pixels must be from 0 to 16, but the largest is 17"),
        ({"levels": np.zeros((500, 8, 8, 1), np.uint8)}, r"shape \(500, 8, 8, 1\), expected \(500, 1, 8, 8\)"),
        ({"levels": np.zeros((499, 1, 8, 8), np.uint8)}, r"shape \(499, 1, 8, 8\), expected \(500, 1, 8, 8\)"),
        ({"labels": np.full(500, 10)}, "labels must be from 0 to 9, got 10 to 10"),
        ({"labels": np.full(500, -1)}, "labels must be from 0 to 9, got -1 to -1"),
        ({"labels": np.zeros(500, np.int32)}, r"labels must be int64 of shape \(N,\), got int32"),
        ({"num_levels": 255}, "num_levels is 255, expected 16"),
    ],
)
def test_what_a_dataset_must_give_is_checked_when_it_is_loaded(
    change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_module("digits"), "open_split", lambda split, folder: _split(**change))
    with pytest.raises(DataError, match=f"digits, test split: .*{message}"):
        load_images("digits", "test")


def test_sound_images_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module("digits"), "open_split", lambda split, folder: _split())
    assert len(load_images("digits", "test").labels) == 500
