from pathlib import PurePosixPath
from typing import Any

import pytest

from analysis.logs.files import LogKind
from analysis.logs.paths import is_named_like_a_log, parse_log_path
from jobs.errors import RecordError

NET = "cifar10/resnet110/noise_0.50/test/sigma_0.50"
SHARED = {"dataset": "cifar10", "architecture": "resnet110", "sigma_train": 0.5, "split": "test", "sigma_cert": 0.5}


def _fields(path: str) -> tuple[dict[str, Any], str]:
    parsed = parse_log_path(PurePosixPath(path), _kind(path))
    return dict(parsed.fields), parsed.variant


def _kind(path: str) -> LogKind:
    return "prediction" if "predictions" in path else "certification"


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
        ("noise_0.50/test/sigma_0.50", "path: does not say dataset"),
        ("cifar10/noise_0.50/test", "path: does not say sigma_cert; set it with mapping=FILE"),
        ("cifar10/noise_0.50/test/sigma_0.00", "path: sigma_cert is 0.0"),
        (f"cifar10/eps_{400 * '9'}/noise_0.50/test/sigma_0.50", "path: epsilon is inf"),
        (f"cifar10/noise_{400 * '9'}/test/sigma_0.50", "path: sigma_train is inf"),
        ("cifar10/2147483648-multitrain/noise_0.50/test/sigma_0.50", "path: m_train is 2147483648"),
        ("predict_cifar_cohen/predictions", "path: does not say n, attack, attack_epsilon, estimator"),
        ("predict_cifar_cohen/N10_nogradtrick/PGD_0.5/base/predictions", "contradictory: estimator is 'gradient_free'"),
    ],
)
def test_paths_that_do_not_do(path: str, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        parse_log_path(PurePosixPath(path), _kind(path))


@pytest.mark.parametrize("name", ["stdout.txt", "philly.yaml", "sigma_", "sigma_0.25.bak", "records.parquet"])
def test_files_that_are_not_named_like_logs(name: str) -> None:
    assert not is_named_like_a_log(PurePosixPath("data/certify/cifar10") / name)
    assert is_named_like_a_log(PurePosixPath("data/sigma_0.25.tsv.gz"))


@pytest.mark.parametrize(
    ("path", "fields", "variant", "rank", "assumed"),
    [
        ("cifar10/resnet110/noise_0.5/test/sigma_0.5.tsv.gz", {"sigma_train": 0.5, "sigma_cert": 0.5}, "", None, 0),
        ("cifar10/run1/certify_sigma0.25_test_rank0", {"sigma_cert": 0.25}, "run1", 0, 0),
        ("cifar10/noise_0.5_sigma_0.25-test.csv", {"sigma_train": 0.5, "sigma_cert": 0.25}, "", None, 0),
        ("cifar10/test/mine_sigma_1.00", {"sigma_cert": 1.0}, "mine", None, 0),
        ("cifar10/test/rank_3/sigma_0.25", {"sigma_cert": 0.25}, "", 3, 0),
        ("data/cifar10/noise_0.25/cat-rs/noise_0.25.tsv", {"method": "cat-rs", "sigma_cert": 0.25}, "", None, 2),
        ("data/certify/cifar10/smoothmix/noise_0.25", {"method": "smoothmix", "sigma_cert": 0.25}, "", None, 2),
        ("cifar10/consistency/cohen/test/sigma_0.5", {"method": "consistency"}, "cohen", None, 0),
        ("cifar10/cifar_resnet110/test/sigma_0.5", {"architecture": "cifar_resnet110"}, "", None, 0),
    ],
)
def test_paths_of_other_papers(path: str, fields: dict[str, Any], variant: str, rank: int | None, assumed: int) -> None:
    parsed = parse_log_path(PurePosixPath(path), "certification")
    assert fields.items() <= parsed.fields.items()
    assert (parsed.fields["dataset"], parsed.fields["split"]) == ("cifar10", "test")
    assert (parsed.variant, parsed.rank, len(parsed.assumed)) == (variant, rank, assumed)


def test_what_is_given_goes_before_the_path_and_the_columns_must_agree_with_it() -> None:
    path = PurePosixPath("imagenet/cifar10/noise_0.50/sigma_0.50")
    given = {"dataset": "cifar10", "split": "train", "sigma_train": 0.25, "variant": "mine"}
    parsed = parse_log_path(path, "certification", columns={"sigma_cert": 0.5}, given=given)
    assert given.items() <= {**parsed.fields, "variant": parsed.variant}.items()
    assert parsed.assumed == []
    assert "sigma_train is 0.25, not 0.5 as its path says" in parsed.notes
    with pytest.raises(RecordError, match=r"contradictory: sigma_cert is 0\.5 in the path and 0\.25 in the log"):
        parse_log_path(path, "certification", columns={"sigma_cert": 0.25}, given=given)
