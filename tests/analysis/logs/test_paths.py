from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest

from analysis.logs.paths import parse_log_path
from jobs.errors import RecordError

NET = "cifar10/resnet110/noise_0.50/test/sigma_0.50"
SHARED = {"dataset": "cifar10", "architecture": "resnet110", "sigma_train": 0.5, "split": "test", "sigma_cert": 0.5}


def _fields(path: str) -> tuple[dict[str, Any], str]:
    parsed = parse_log_path(PurePosixPath(path))
    assert parsed is not None
    return dict(parsed.fields), parsed.variant


@pytest.mark.parametrize(
    ("path", "fields", "variant"),
    [
        (
            f"data/certify/cifar10/PGD_2steps_multiNoiseSamples/8-multitrain/eps_512/{NET}",
            {"method": "smoothadv", "attack": "pgd", "num_steps": 2, "m_train": 8, "epsilon": 2.0},
            "",
        ),
        (
            f"data/certify/cifar10/DDN_4steps/eps_255/{NET}",
            {"method": "smoothadv", "attack": "ddn", "num_steps": 4, "m_train": 1, "epsilon": 255 / 256},
            "",
        ),
        (
            f"data/certify/cifar10/PGD_2steps_baseAttackExp/with_noise/eps_64/{NET}",
            {"method": "smoothadv", "attack": "pgd", "num_steps": 2, "m_train": 1, "epsilon": 0.25},
            "with_noise",
        ),
        (
            f"data/certify/cifar10/PGD_2steps_baseAttackExp/without_noise/eps_64/{NET}",
            {"method": "vanilla_noise", "attack": "pgd", "num_steps": 2, "m_train": 1, "epsilon": 0.25},
            "without_noise",
        ),
        (
            f"data_cohen/certify/{NET}",
            {"method": "gaussian", "attack": "none", "num_steps": 0, "m_train": 1, "epsilon": 0.0},
            "",
        ),
        (
            f"data/certify/cifar10/self_training/PGD_10steps/weight_0.1/eps_64/{NET}",
            {"method": "smoothadv", "attack": "pgd", "num_steps": 10, "m_train": 1, "epsilon": 0.25},
            "self_training/weight_0.1",
        ),
        (
            f"data/certify/cifar10/finetune_cifar_from_imagenetPGD2steps/self_training_PGD_2steps/weight_0.5/eps_64/{NET}",
            {"method": "smoothadv", "attack": "pgd", "num_steps": 2, "m_train": 1, "epsilon": 0.25},
            "finetune_cifar_from_imagenetPGD2steps/self_training/weight_0.5",
        ),
        (
            f"data/certify/cifar10/finetune_x/PGD_2steps_30epochs_multinoise/4-multitrain/eps_64/{NET}",
            {"method": "smoothadv", "attack": "pgd", "num_steps": 2, "m_train": 4, "epsilon": 0.25},
            "finetune_x/30epochs_multinoise",
        ),
        (
            f"data/certify/best_models/cifar10/cohen/{NET}",
            {"method": "gaussian", "attack": "none", "num_steps": 0, "m_train": 1, "epsilon": 0.0},
            "best_models/cohen",
        ),
    ],
)
def test_certification_paths(path: str, fields: dict[str, Any], variant: str) -> None:
    assert _fields(path) == ({**SHARED, **fields}, variant)


def test_vanilla_training_saw_no_noise() -> None:
    fields, _ = _fields(
        "data/certify/cifar10/PGD_2steps_baseAttackExp/without_noise/eps_64/cifar10/resnet110/noise_0.00/test/sigma_0.25"
    )
    assert (fields["method"], fields["sigma_train"], fields["sigma_cert"]) == ("vanilla", 0.0, 0.25)


def test_imagenet_paths() -> None:
    fields, variant = _fields("data/certify/imagenet/PGD_1step/imagenet/eps_1024/resnet50/noise_1.00/test/sigma_1.00")
    assert (fields["dataset"], fields["num_steps"], fields["epsilon"], variant) == ("imagenet", 1, 4.0, "")
    fields, variant = _fields("data/certify/imagenet/replication/resnet50/noise_0.25/test/sigma_0.25")
    assert (fields["method"], variant) == ("gaussian", "replication")


@pytest.mark.parametrize(
    ("path", "estimator", "n", "m_test"),
    [
        ("data/predict/predict_cifar_cohen/N10000/PGD_1.125/num_16/predictions", "smoothed", 10_000, 16),
        ("data/predict/predict_cifar_cohen/N100/PGD_1.125/base/predictions", "base", 100, None),
        ("data/predict/predict_cifar_ours/N10000_nogradtrick/PGD_1.125/num_4/predictions", "gradient_free", 10_000, 4),
    ],
)
def test_prediction_paths(path: str, estimator: str, n: int, m_test: int | None) -> None:
    fields, variant = _fields(path)
    assert (fields["estimator"], fields["n"], fields.get("m_test")) == (estimator, n, m_test)
    assert (fields["dataset"], fields["attack"], fields["attack_epsilon"], variant) == ("cifar10", "pgd", 1.125, "")
    assert fields["method"] == ("smoothadv" if "ours" in path else "gaussian")


def test_what_no_rule_knows_is_kept_and_nothing_is_guessed_from_it() -> None:
    fields, variant = _fields(f"data/certify/cifar10/MYPGD_7steps/eps_big/{NET}")
    assert variant == "MYPGD_7steps/eps_big"
    assert fields == SHARED


def test_several_draws_of_unknown_number_are_not_taken_for_one() -> None:
    fields, _ = _fields(f"data/certify/cifar10/PGD_2steps_multiNoiseSamples/eps_64/{NET}")
    assert "m_train" not in fields


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (
            "data/certify/imagenet/x/cifar10/resnet110/noise_0.50/test/sigma_0.50",
            "contradictory: dataset is 'imagenet'",
        ),
        ("data/certify/cifar10/PGD_2steps/DDN_2steps/noise_0.5/test/sigma_0.50", "contradictory: attack is 'pgd'"),
        ("noise_0.50/test/sigma_0.50", "path: does not give dataset"),
        ("cifar10/noise_0.50/sigma_0.50", "path: does not give split"),
        ("cifar10/noise_0.50/test/sigma_0.00", "path: sigma_cert is 0.0"),
        (f"cifar10/eps_{400 * '9'}/noise_0.50/test/sigma_0.50", "path: epsilon is inf"),
        (f"cifar10/noise_{400 * '9'}/test/sigma_0.50", "path: sigma_train is inf"),
        ("cifar10/2147483648-multitrain/noise_0.50/test/sigma_0.50", "path: m_train is 2147483648"),
        ("predict_cifar_cohen/predictions", "path: does not give n, attack, attack_epsilon, estimator"),
        ("predict_cifar_cohen/N10_nogradtrick/PGD_0.5/base/predictions", "contradictory: estimator is 'gradient_free'"),
    ],
)
def test_paths_that_do_not_do(path: str, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        parse_log_path(PurePosixPath(path))


@pytest.mark.parametrize("name", ["stdout.txt", "philly.yaml", "sigma_", "sigma_0.25.bak", "records.parquet"])
def test_files_that_are_no_logs(name: str) -> None:
    assert parse_log_path(PurePosixPath("data/certify/cifar10") / name) is None
