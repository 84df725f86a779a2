from __future__ import annotations

from typing import Any

import pytest

from jobs.errors import ConfigError
from jobs.specs.runs import Manifest
from pipeline.request.grid import GridConfig, expand

TRAIN: dict[str, Any] = {
    "dataset": "digits",
    "architecture": "digits_cnn",
    "epochs": 1,
    "batch_size": 64,
    "learning_rate": 0.05,
    "lr_step_epochs": 1,
    "lr_gamma": 1.0,
    "momentum": 0.9,
    "weight_decay": 0.0,
    "seed": 0,
}
CERTIFY: dict[str, Any] = {
    "n0": 100,
    "n": 1000,
    "alpha": 0.001,
    "seed": 0,
    "sigma_cert": None,
    "indices": {"start": 0, "stop": None, "step": 1},
}
PGD = {"method": "smoothadv", "attack": "pgd", "num_steps": 2}


def _expand(
    *blocks: dict[str, Any], exclude: list[dict[str, Any]] | None = None, certify: dict[str, Any] | None = None
) -> Manifest:
    grid = GridConfig(name="g", blocks=list(blocks), exclude=exclude or [])
    return expand(grid, TRAIN, {**CERTIFY, **(certify or {})})


def _problems(*blocks: dict[str, Any], **kwargs: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        _expand(*blocks, **kwargs)
    return "\n".join(caught.value.problems)


def test_a_block_is_the_product_of_its_axes() -> None:
    runs = _expand({**PGD, "sigma": [0.25, 0.5], "epsilon": [0.5, 1.0], "m_train": [1, 2]}).runs
    points = [(run.train.sigma, run.train.epsilon, run.train.m_train) for run in runs]
    assert points == [(s, e, m) for s in (0.25, 0.5) for e in (0.5, 1.0) for m in (1, 2)]
    assert all(run.certify.sigma_cert == run.train.sigma for run in runs)


def test_duplicates_across_blocks_collapse() -> None:
    block = {"method": "gaussian", "sigma": [0.25, 0.5]}
    assert len(_expand(block, block, {"method": "gaussian", "sigma": 0.5}).runs) == 2


def test_excluded_models_are_left_out() -> None:
    runs = _expand({"method": "gaussian", "sigma": [0.12, 0.25]}, exclude=[{"sigma": 0.12}]).runs
    assert [run.train.sigma for run in runs] == [0.25]


def test_one_model_can_be_certified_at_several_sigmas() -> None:
    runs = _expand({"method": "gaussian", "sigma": 0.25, "sigma_cert": [0.25, 0.5]}).runs
    assert len({run.train.key for run in runs}) == 1
    assert [run.certify.sigma_cert for run in runs] == [0.25, 0.5]


def test_the_certify_group_sets_sigma_for_all() -> None:
    (run,) = _expand({"method": "gaussian", "sigma": 0.25}, certify={"sigma_cert": 0.5}).runs
    assert run.certify.sigma_cert == 0.5


def test_the_images_default_to_the_whole_split() -> None:
    (run,) = _expand({"method": "gaussian", "sigma": 0.25}).runs
    assert len(run.indices) == 500


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({}, "grid.blocks[0]: expands to nothing: the block is empty"),
        ({"method": "gaussian", "sigma": []}, "grid.blocks[0]: expands to nothing: sigma is an empty list"),
        ({"method": "gaussian", "sgima": 1}, "grid.blocks[0]: unknown axis 'sgima' (did you mean 'sigma'?)"),
        (
            {"method": "gaussian", "sigma": [0.25, -1]},
            "train.sigma: input should be greater than or equal to 0, got -1",
        ),
        ({"method": "gaussian", "sigma": 0.25, "sigma_cert": 0.0}, "certify.sigma_cert: input should be greater"),
        ({"method": ["gaussian", "magic"], "sigma": 0.25}, "train.method: 'magic' is not valid"),
        ({"method": "gaussian", "sigma": 0.25, "dataset": "mnist"}, "unknown dataset 'mnist'"),
        ({**PGD, "sigma": 0.25, "epsilon": -0.5}, "train.epsilon: input should be greater than or equal to 0"),
        ({**PGD, "sigma": 0.25, "epsilon": 0.5, "m_train": 0}, "train.m_train: input should be greater"),
    ],
)
def test_a_bad_block_is_named(block: dict[str, Any], message: str) -> None:
    assert message in _problems(block)


def test_a_grid_without_blocks_is_refused() -> None:
    assert "grid.blocks: expands to nothing: there is no block" in _problems()


def test_a_block_that_is_excluded_whole_is_refused() -> None:
    problems = _problems({"method": "gaussian", "sigma": 0.25}, exclude=[{"sigma": 0.25}])
    assert "grid.blocks[0]: expands to nothing: every model of it is excluded" in problems


def test_an_exclusion_that_matches_nothing_is_refused() -> None:
    problems = _problems({"method": "gaussian", "sigma": 0.25}, exclude=[{"sigma": 0.5}])
    assert "grid.exclude[0]: {'sigma': 0.5} matches no model" in problems
    problems = _problems({"method": "gaussian", "sigma": 0.25}, exclude=[{"sgima": 0.25}])
    assert problems.startswith("grid.exclude[0]: unknown axis 'sgima' (did you mean 'sigma'?)")
    assert "matches no model" not in problems


@pytest.mark.parametrize(
    ("certify", "message"),
    [
        ({"n": 9}, "n=9 draws can never certify anything"),
        ({"n": 0}, "certify.n: input should be greater than or equal to 1"),
        ({"alpha": 1.5}, "certify.alpha: input should be less than 1"),
        ({"indices": {"start": 0, "stop": 501}}, "certify.indices.stop: 501 is beyond the 500 images of digits's test"),
        ({"indices": {"start": 9, "stop": 9}}, "indices 9 to 9 are empty"),
        ({"indices": {"first": 9}}, "unknown key 'first'"),
        ({"split": "validation"}, "certify.split: 'validation' is not valid"),
    ],
)
def test_a_bad_certification_is_named(certify: dict[str, Any], message: str) -> None:
    assert message in _problems({"method": "gaussian", "sigma": 0.25}, certify=certify)


def test_the_problems_of_all_blocks_are_reported_at_once() -> None:
    problems = _problems({"method": "gaussian", "sigma": -1.0}, {"method": "gaussian", "sigma": []}, {"x": 1})
    for expected in ("got -1.0", "grid.blocks[1]", "grid.blocks[2]"):
        assert expected in problems


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden"])
def test_a_grid_s_name_must_be_fit_for_a_folder(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        GridConfig(name=name, blocks=[])
