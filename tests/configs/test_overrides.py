"""Values are set in a configuration as Hydra sets them when it composes from the whole command line."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from configs.composition import VERSION_BASE, compose_config
from configs.files import CONFIG_DIR
from jobs.errors import ConfigError


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["train.epochs=7", "certify.n=1e5", "results='a b'", "train.epochs=8"],
        [
            "cluster=slurm",
            "cluster.train.mem_gb=2.5",
            "+cluster.extra.hold=true",
            "+cluster.extra.nice=3",
            "++cluster.train.cpus=3",
        ],
        ["cluster=slurm", "cluster.setup=['module load x']", "cluster.setup=[a,b]"],
        ["grid.blocks=[{method: gaussian, sigma: [0.25, 0.5]}]", "+train.multi_noise=paper", "certify.indices.stop=8"],
        ["+certify.indices={stride: 2}", "+train.inverse_temperature=2.0", "++train.epochs=2"],
        ["~train.epochs", "~wait", "~certify.alpha=0.001", "certify.indices={start: 5}"],
        ["attack=paper", "attack.m_test=[8,128]", "certify=quick", "cluster=debug", "retry=bug", "data.imagenet=null"],
        ["certify.n=${certify.n0}", "results=${oc.env:HOME}/x"],
    ],
)
def test_a_command_line_composes_as_with_hydra_alone(overrides: list[str]) -> None:
    with initialize_config_dir(config_dir=str(CONFIG_DIR), **VERSION_BASE):
        expected = OmegaConf.to_container(compose("launch", ["grid=digits", *overrides]), resolve=True)
    assert compose_config("launch", ["grid=digits", *overrides]) == expected


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("~train.epochs=12345", "~train.epochs=12345: train.epochs is 15, not 12345; write ~train.epochs to delete it"),
        ("+train.epochs=5", "+train.epochs=5: train.epochs is already set; write train.epochs=VALUE"),
        ("train.epochs@x=5", "train.epochs@x=5: @ is valid for groups only"),
        ("+train.epochs.x=[", "cannot parse the argument '+train.epochs.x=['"),
        ("train.epochs.x=5", "unknown key 'train.epochs.x'"),
    ],
)
def test_an_override_that_does_not_fit_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_config("launch", ["grid=digits", override])
    assert any(message in problem for problem in caught.value.problems), caught.value.problems


@pytest.mark.parametrize(
    ("value", "expected"), [("[9,3,0]", [9, 3, 0]), ("a b,(c).txt", "a b,(c).txt"), ("{stop: 5}", {"stop": 5})]
)
def test_indices_are_a_list_or_a_path_or_keys(value: str, expected: object) -> None:
    found = compose_config("launch", ["grid=digits", "attack=digits", f"certify.indices={value}"])["certify"]["indices"]
    assert found == ({"start": 0, "step": 1, **expected} if isinstance(expected, dict) else expected)


def test_a_group_of_one_s_own_is_added(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "short.yaml").write_text("# @package _global_\ntrain:\n  epochs: 3\n")
    overrides = ["grid=digits", f"hydra.searchpath=[file://{tmp_path}]", "+site=short", "train.batch_size=7"]
    train = compose_config("launch", overrides)["train"]
    assert (train["epochs"], train["batch_size"]) == (3, 7)


def test_a_configuration_is_not_changed_by_one_composed_before() -> None:
    first = compose_config("launch", ["grid=digits", "train.epochs=7", "+train.multi_noise=paper", "~wait"])
    second = compose_config("launch", ["grid=digits"])
    assert (first["train"]["epochs"], second["train"]["epochs"]) == (7, 15)
    assert "multi_noise" not in second["train"]
    assert "wait" in second
