from dataclasses import asdict, replace

import pytest

from jobs.errors import ConfigError
from jobs.specs.certify import CertifySpec
from jobs.specs.train import TrainSpec
from jobs.validation import build

GAUSSIAN = TrainSpec(
    dataset="digits",
    architecture="digits_cnn",
    method="gaussian",
    sigma=0.25,
    epochs=15,
    batch_size=64,
    learning_rate=0.05,
    lr_step_epochs=6,
    lr_gamma=0.2,
    momentum=0.9,
    weight_decay=1e-4,
    seed=0,
)
SMOOTHADV = replace(GAUSSIAN, method="smoothadv", attack="pgd", epsilon=0.5, m_train=4, num_steps=2, warmup_epochs=6)
CERTIFY = CertifySpec(train_key=GAUSSIAN.key, sigma_cert=0.25, n0=100, n=1000, alpha=0.001, seed=0)


def test_keys_are_pinned() -> None:
    # A change here orphans every result that users have: raise KEY_FORMAT and say so in CHANGELOG.md.
    assert GAUSSIAN.key == "digits-gaussian-s0.25-74fc179a"
    assert SMOOTHADV.key == "digits-pgd-s0.25-e0.50-m4-t2-798fce62"
    assert CERTIFY.key == "s0.25-n1000-9e196feb"


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"epochs": 16}, {"learning_rate": 0.1}, {"sigma": 0.5}, {"weight_decay": 0.0}]
)
def test_every_field_is_in_the_key(change: dict[str, float]) -> None:
    assert replace(GAUSSIAN, **change).key != GAUSSIAN.key  # type: ignore[arg-type]


def test_the_slug_shows_small_differences() -> None:
    assert "-e0.125-" in replace(SMOOTHADV, epsilon=0.125).key
    assert "-s0.50-" in replace(SMOOTHADV, sigma=0.5).key


def test_an_integer_means_the_same_as_its_float() -> None:
    assert replace(GAUSSIAN, sigma=1).key == replace(GAUSSIAN, sigma=1.0).key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.0}, "method=gaussian trains with noise: sigma must be > 0"),
        ({"sigma": -0.25}, "got -0.25"),
        ({"sigma": float("nan")}, "sigma: input should be"),
        ({"epsilon": -1.0}, "epsilon: input should be greater than or equal to 0, got -1.0"),
        ({"m_train": 0}, "m_train: input should be greater than or equal to 1, got 0"),
        ({"m_train": 2.5}, "m_train: input should be a valid integer, got 2.5"),
        ({"epochs": True}, "epochs: input should be a valid integer, got True"),
        ({"method": "magic"}, "method: 'magic' is not valid; valid: 'gaussian'"),
        (
            {"dataset": "digit"},
            "unknown dataset 'digit' (did you mean 'digits'?); valid: cifar10, cifar10_images, digits, imagenet",
        ),
        ({"architecture": "cnn"}, "unknown architecture 'cnn'"),
        ({"lr_gama": 0.1}, "unknown key 'lr_gama' (did you mean 'lr_gamma'?)"),
        ({"epsilon": 0.5}, "method=gaussian has no attack"),
        ({"method": "smoothadv"}, "method=smoothadv needs an attack"),
    ],
)
def test_a_bad_field_is_named_with_its_value(change: dict[str, object], message: str) -> None:
    values = {key: getattr(GAUSSIAN, key) for key in GAUSSIAN.__dataclass_fields__}
    with pytest.raises(ConfigError) as caught:
        build(TrainSpec, {**values, **change}, where="train")
    assert any(message in problem for problem in caught.value.problems)


def test_all_problems_are_reported_at_once() -> None:
    values = {key: getattr(GAUSSIAN, key) for key in GAUSSIAN.__dataclass_fields__}
    with pytest.raises(ConfigError) as caught:
        build(TrainSpec, {**values, "sigma": -1.0, "m_train": 0, "seed": -3}, where="train")
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 0.0}, "alpha: input should be greater than 0"),
        ({"alpha": 1.0}, "alpha: input should be less than 1"),
        ({"n": 0}, "n: input should be greater than or equal to 1"),
        ({"n0": 0}, "n0: input should be"),
        ({"n": 9}, "n=9 draws can never certify anything at alpha=0.001"),
        ({"n": 9}, "take n >= 10"),
        ({"sigma_cert": 0.0}, "sigma_cert: input should be greater than 0"),
        ({"precision": "float8"}, "precision: 'float8' is not valid"),
    ],
)
def test_a_bad_certification_is_refused(change: dict[str, object], message: str) -> None:
    values = asdict(CERTIFY)
    with pytest.raises(ConfigError) as caught:
        build(CertifySpec, {**values, **change}, where="certify")
    assert any(message in problem for problem in caught.value.problems)
