"""pipeline.predict: image files, classified and certified by a finished model."""

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from configs.entry import run_command
from jobs.datasets import _tree_images, dataset_info, load_images
from jobs.files.manifest import open_grid
from jobs.files.store import Store
from jobs.networks.checkpoint import load_classifier
from jobs.networks.inference import for_inference
from jobs.predict import predict
from smoothing import SmoothedClassifier
from smoothing.certificate import Certificate
from smoothing.radius import ABSTAIN

CPU = torch.device("cpu")
NAME = "gaussian-s0.25"


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five digits as PNG, with a note beside them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    levels = load_images("digits", "test").pixels()[:5, 0]
    for number, pixels in enumerate(levels):
        Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8)).save(folder / f"{number}.png")
    (folder / "note.txt").write_text("not an image")
    return folder


def ask(earlier: Path, *arguments: str, code: int = 0) -> None:
    assert run_command("predict", predict, [f"results={earlier}", *arguments]) == code


def expected(earlier: Path, number: int, n: int = 200, alpha: float = 0.001) -> Certificate:
    """The certificate of a digit, whose noise follows from its pixels."""
    store = Store(earlier)
    run = next(run for run in open_grid(store, "old").of("certify") if NAME in run.train.key)
    trained = load_classifier(store.checkpoint_path(run.train.key), run.train, CPU)
    smoothed = SmoothedClassifier(base_classifier=for_inference(trained.classifier, "float32", CPU), sigma=0.25)
    images = load_images("digits", "test")
    index = int.from_bytes(hashlib.sha256(images.pixels()[number].tobytes()).digest()[:8])
    image_CHW = torch.from_numpy(images.image(number))
    return smoothed.certify(image_CHW, n=n, alpha=alpha, first_index=index)[0]


def test_answers_are_certify_on_the_images_of_the_files(
    earlier: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(earlier, f"run={NAME}", f"source={photos}", "format=json")
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert [Path(row["file"]).name for row in rows] == [f"{number}.png" for number in range(5)]
    for number, row in enumerate(rows):
        certificate = expected(earlier, number)
        assert (row["prediction"], row["radius"]) == (certificate.prediction, certificate.radius)
        assert (row["p_lower"], row["count_top"]) == (certificate.p_lower, certificate.count_top)
        assert row["abstains"] == (certificate.prediction == ABSTAIN)
        assert row["class"] == (None if row["abstains"] else certificate.prediction)
        assert (row["n0"], row["n"], row["n_used"], row["alpha"], row["sigma_cert"]) == (100, 200, 200, 0.001, 0.25)
    assert [row["prediction"] for row in rows] == [0, 3, 9, 8, 0]


def test_one_file_gets_the_same_answer_alone_and_with_other_settings_another(
    earlier: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(earlier, "grid=old", f"run={NAME}", f"source={photos / '[34].png'}", "format=csv", "n=400", "alpha=0.01")
    (_, row) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    certificate = expected(earlier, 4, n=400, alpha=0.01)
    assert float(row["radius"]) == certificate.radius
    assert float(row["p_lower"]) == certificate.p_lower
    assert (row["n"], row["alpha"]) == ("400", "0.01")


def test_the_table_fits_80_columns_and_never_rounds_up(
    earlier: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(earlier, f"run={NAME}", f"source={photos}")
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    for number, line in enumerate(text.splitlines()[2:7]):
        certificate = expected(earlier, number)
        cells = line.split()
        assert f"{number}.png" in cells[0]
        assert 0 <= certificate.p_lower - float(cells[3]) < 1e-4
        if certificate.prediction == ABSTAIN:
            assert cells[1:3] == ["abstains", "-"]
        else:
            assert cells[1] == str(certificate.prediction)
            assert 0 <= certificate.radius - float(cells[2]) < 1e-4


def test_every_bad_file_is_named(
    earlier: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setattr(_tree_images, "_MAX_PIXELS", 200)
    (photos / "broken.png").write_bytes(b"no image at all")
    Image.new("L", (9, 8)).save(photos / "large.png")
    Image.new("L", (32, 32)).save(photos / "bomb.png")
    Image.new("F", (8, 8)).save(photos / "deep.tif")
    ask(earlier, f"run={NAME}", f"source={photos}", code=2)
    captured = capsys.readouterr()
    for name, reason in (
        ("broken.png", "cannot be decoded"),
        ("large.png", "9 x 8 pixels, expected 8 x 8"),
        ("bomb.png", "a decompression bomb"),
        ("deep.tif", "pixels of 32 bits"),
    ):
        assert any(name in line and reason in line for line in captured.err.splitlines()), name
    assert not captured.out


def test_16_bits_are_scaled_to_the_levels_of_the_data_set(
    earlier: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    levels = load_images("digits", "test").pixels()[2, 0]
    deep = np.rint(levels * (65535 / 16)).astype(np.uint16)
    Image.fromarray(deep).save(photos / "2-deep.png")
    ask(earlier, f"run={NAME}", f"source={photos / '2*.png'}", "format=json")
    first, second = json.loads(capsys.readouterr().out)
    assert {**first, "file": ""} == {**second, "file": ""}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "run is required; write run=NAME, one of: gaussian-s0.25, pgd-s0.25-e0.50-m2-t2"),
        (["run=gaussian-s0.2", "source=PHOTOS"], "unknown run 'gaussian-s0.2' (did you mean 'gaussian-s0.25'?)"),
        ([f"run={NAME}"], "source is required"),
        ([f"run={NAME}", "source=nowhere.png"], "source: nowhere.png: no such file"),
        ([f"run={NAME}", "source=EMPTY"], "no image file (.jpg, .jpeg,"),
        ([f"run={NAME}", "source=PHOTOS", "n=3"], "can never certify anything"),
        ([f"run={NAME}", "source=PHOTOS", "format=xml"], "predict.format: 'xml' is not valid"),
        (["grid=new", f"run={NAME}", "source=PHOTOS"], "unknown grid 'new'"),
    ],
)
def test_a_wrong_command_line_ends_with_2(
    arguments: list[str], message: str, earlier: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "empty").mkdir()
    places = {"source=PHOTOS": f"source={photos}", "source=EMPTY": f"source={photos / 'empty'}"}
    ask(earlier, *(places.get(argument, argument) for argument in arguments), code=2)
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_model_that_is_not_trained_or_damaged_is_not_asked(
    earlier: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(earlier)
    key = next(key for key in open_grid(store, "old").models if NAME in key)
    path = store.checkpoint_path(key)
    path.write_bytes(path.read_bytes()[:1000])
    ask(earlier, f"run={key}", f"source={photos}", code=1)
    assert f"{path}: cannot be read: truncated or damaged" in " ".join(capsys.readouterr().err.split())
    path.unlink()
    ask(earlier, f"run={key}", f"source={photos}", code=2)
    assert f"{key} is not trained yet" in " ".join(capsys.readouterr().err.split())


def test_classes_have_the_names_of_their_data_set() -> None:
    assert dataset_info("cifar10").class_names[3] == dataset_info("cifar10_images").class_names[3] == "cat"
