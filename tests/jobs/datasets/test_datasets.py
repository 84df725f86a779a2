from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from jobs.datasets import dataset_info, dataset_names, load_images
from jobs.errors import ConfigError


def test_digits_is_registered() -> None:
    assert "digits" in dataset_names()


def test_the_splits_are_disjoint_and_complete() -> None:
    train, test = load_images("digits", "train"), load_images("digits", "test")
    assert len(test.labels) == 500
    together = np.concatenate([train.inputs, test.inputs]).reshape(1797, 64)
    everything = (load_digits().data / 16).astype(np.float32)
    assert np.array_equal(np.sort(together.view("V256").ravel()), np.sort(everything.view("V256").ravel()))


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
    inputs = load_images("digits", "train").inputs
    assert inputs.dtype == np.float32
    assert (inputs.min(), inputs.max()) == (0.0, 1.0)


def test_the_normalisation_is_the_training_set_s() -> None:
    info, inputs = dataset_info("digits"), load_images("digits", "train").inputs
    assert info.mean == pytest.approx([inputs.mean()], abs=5e-4)
    assert info.std == pytest.approx([inputs.std()], abs=5e-4)


def test_all_classes_are_in_both_splits() -> None:
    for split in ("train", "test"):
        counts = np.bincount(load_images("digits", split).labels, minlength=10)
        assert counts.min() >= 30


def test_an_unknown_dataset_names_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown dataset 'digit' \(did you mean 'digits'\?\)"):
        dataset_info("digit")
