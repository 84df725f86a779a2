import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import ConfigError
from jobs.specs.indices import IndexRange
from jobs.specs.runs import Manifest, Run
from jobs.specs.train import TrainSpec
from jobs.training.schedules import epsilon_at
from jobs.validation import build
from pipeline.request.grid import GridConfig, expand
from pipeline.request.lengths import notes

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
        ({}, "grid.blocks[0]: the block is empty; write at least one key"),
        ({"method": "gaussian", "sigma": []}, "grid.blocks[0].sigma: the list is empty; write at least one value"),
        ({"method": "gaussian", "sgima": 1}, "grid.blocks[0]: unknown axis 'sgima' (did you mean 'sigma'?)"),
        (
            {"method": "gaussian", "sigma": [0.25, -1]},
            "grid.blocks[0].sigma: input should be greater than or equal to 0, got -1",
        ),
        (
            {"method": "gaussian", "sigma": 0.25, "sigma_cert": 0.0},
            "grid.blocks[0].sigma_cert: input should be greater",
        ),
        ({"method": ["gaussian", "magic"], "sigma": 0.25}, "grid.blocks[0].method: 'magic' is not valid"),
        ({"method": "gaussian", "sigma": 0.25, "dataset": "mnist"}, "unknown dataset 'mnist'"),
        ({**PGD, "sigma": 0.25, "epsilon": -0.5}, "grid.blocks[0].epsilon: input should be greater than or equal to 0"),
        ({**PGD, "sigma": 0.25, "epsilon": 0.5, "m_train": 0}, "grid.blocks[0].m_train: input should be greater"),
    ],
)
def test_a_bad_block_is_named(block: dict[str, Any], message: str) -> None:
    assert message in _problems(block)


def test_a_grid_without_blocks_is_refused() -> None:
    assert "grid.blocks: the list is empty; write at least one block" in _problems()


def test_a_block_that_is_excluded_whole_is_refused() -> None:
    problems = _problems({"method": "gaussian", "sigma": 0.25}, exclude=[{"sigma": 0.25}])
    assert "grid.blocks[0]: grid.exclude excludes all of its models; correct the rules or remove the block" in problems


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
        ({"indices": {"start": 0, "stop": 501}}, "certify.indices.stop: 501 is beyond the 500 test images of digits"),
        ({"indices": {"start": 9, "stop": 9}}, "indices 9 to 9 are empty"),
        ({"indices": {"first": 9}}, "unknown key 'first'"),
        ({"indices": [3, 500]}, "certify.indices: 500 is beyond the 500 test images of digits"),
        ({"indices": [3, -1, 2.0, True]}, "certify.indices: True is not an image index"),
        ({"indices": [3, 7, 3]}, "certify.indices: 3 is given more than once"),
        ({"indices": []}, "certify.indices: contains no index"),
        ({"indices": 20}, "certify.indices: write start, stop and step, a list, or the path of a file, got 20"),
        ({"indices": "nowhere.txt"}, "certify.indices=nowhere.txt: cannot be read (No such file"),
        ({"split": "validation"}, "certify.split: 'validation' is not valid"),
    ],
)
def test_a_bad_certification_is_named(certify: dict[str, Any], message: str) -> None:
    assert message in _problems({"method": "gaussian", "sigma": 0.25}, certify=certify)


def test_a_list_and_a_file_of_indices_are_a_range_where_they_can_be(tmp_path: Path) -> None:
    def of(indices: object) -> Run:
        return _expand({"method": "gaussian", "sigma": 0.25}, certify={"indices": indices}).runs[0]

    path = tmp_path / "chosen.txt"
    path.write_text("# by hand\n40, 0 20\n60  # and the last\n")
    expected = of({"start": 0, "stop": 61, "step": 20})
    assert of([60, 40, 0, 20]) == of(str(path)) == expected
    assert of([7]).indices == IndexRange(start=7, stop=8)
    assert list(of([9, 0, 4]).indices) == [0, 4, 9]
    assert of([9, 0, 4]).task.key == expected.task.key
    path.write_text("0 one\n")
    with pytest.raises(ConfigError, match=r"chosen\.txt: 'one' is not an image index"):
        of(str(path))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"chosen\.txt: cannot be read .it is not a text file"):
        of(str(path))


def test_the_problems_of_all_blocks_are_reported_at_once() -> None:
    problems = _problems({"method": "gaussian", "sigma": -1.0}, {"method": "gaussian", "sigma": []}, {"x": 1})
    for expected in ("got -1.0", "grid.blocks[1]", "grid.blocks[2]"):
        assert expected in problems


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden"])
def test_a_grid_s_name_must_be_fit_for_a_folder(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        GridConfig(name=name, blocks=[])


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (
            {"method": "gaussian", "sigma": 30.6},
            "blocks.0..sigma: 30.6 is too large: .* for pixels from 0 to 255 is 0.12",
        ),
        ({"method": "gaussian", "sigma": 0.25, "sigma_cert": 64}, "blocks.0..sigma_cert: 64 .* from 0 to 255 is 0.251"),
        ({**PGD, "sigma": 0.25, "epsilon": 64}, "blocks.0..epsilon: 64 .* is 0.251; the published .* eps_64 have 0.25"),
        (
            {**PGD, "attack": "ddn", "ddn_initial_norm": 64.0, "sigma": 0.25, "epsilon": 1.0},
            "ddn_initial_norm: 64 .* 0.251$",
        ),
        ({**PGD, "sigma": 0.25, "epsilon": 8.1}, "two images of digits differ by at most 8; "),
    ],
)
def test_a_length_in_other_units_is_refused_with_its_value_beside_it(block: dict[str, Any], message: str) -> None:
    assert re.search(message, _problems(block))


def test_what_the_block_does_not_set_is_named_by_its_group() -> None:
    problems = _problems(
        {"method": "gaussian", "sigma": [0.25, 9.0]}, {"method": "gaussian", "sigma": 1.0, "epochs": 0}
    )
    assert [problem.partition(": ")[0] for problem in problems.splitlines()] == [
        "grid.blocks[0].sigma",
        "grid.blocks[1].epochs",
    ]
    problems = _problems({"method": "gaussian", "sigma": 0.25}, certify={"sigma_cert": 9.0, "radius_step": None})
    assert problems.startswith("certify.sigma_cert: 9 is too large")


@pytest.mark.parametrize(("alpha", "is_meant"), [(0.5, True), (0.51, False), (0.999, False)])
def test_an_error_probability_above_a_half_is_refused_at_launch_and_stays_readable(
    alpha: float, is_meant: bool
) -> None:
    block = {"method": "gaussian", "sigma": 0.25}
    expected = f"certify.alpha: {alpha:g} is the probability that a result is wrong; it must be at most 0.5"
    if is_meant:
        assert _expand(block, certify={"alpha": alpha}).runs
    else:
        assert expected in _problems(block, certify={"alpha": alpha})
        stored = _expand(block).runs[0].certify
        assert replace(stored, alpha=alpha).alpha == alpha


def test_lengths_of_the_field_are_taken() -> None:
    blocks = [{**PGD, "sigma": [0.12, 1.0, 2.0], "epsilon": [0.01, 2.0, 4.0]}, {"method": "gaussian", "sigma": 8.0}]
    assert len(_expand(*blocks).runs) == 10


@pytest.mark.parametrize(
    ("warmup", "warmup_epochs", "is_reached"),
    [("paper", 0, True), ("paper", 4, True), ("paper", 5, False), ("published", 5, True), ("published", 6, False)],
)
def test_a_warmup_that_never_reaches_epsilon_is_refused(warmup: str, warmup_epochs: int, is_reached: bool) -> None:
    """The last of five epochs has number 4."""
    block = {**PGD, "sigma": 0.25, "epsilon": 0.5, "epochs": 5, "warmup_epochs": warmup_epochs, "warmup": warmup}
    if is_reached:
        (run,) = _expand(block).runs
        assert epsilon_at(run.train, 4) == 0.5
    else:
        assert "never reaches 0.5" in _problems(block)


def test_a_spec_that_a_launch_refuses_can_still_be_read() -> None:
    values = {**TRAIN, **PGD, "sigma": 100.0, "epsilon": 50.0, "warmup_epochs": 10}
    assert build(TrainSpec, values, where="train").epsilon == 50.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 1e-31}, "certify: alpha=1e-31 is too small: no bound is sound below 1e-30"),
        (
            {"alpha": 2e-30, "mode": "adaptive", "stop_rule": "curve", "radius_step": 0.1, "n": 4000},
            "smallest share of it for one bound is 2.5e-32",
        ),
    ],
)
def test_an_alpha_below_what_bounds_allow_is_refused(change: dict[str, Any], message: str) -> None:
    assert re.search(message, _problems({"method": "gaussian", "sigma": 0.25}, certify=change))


def test_what_can_be_launched_but_deserves_a_word_is_noted() -> None:
    block = {**PGD, "sigma": 0.25, "epsilon": 127 / 255, "batch_size": 5000}
    batch, epsilon = notes(_expand(block))
    assert batch == "train.batch_size=5000 is more than the 1297 training images of digits: each epoch is one step"
    assert epsilon.startswith("train.epsilon=0.498039 is 127/255; the published models called eps_127 have 127/256")
    assert not list(notes(_expand({**PGD, "sigma": 0.25, "epsilon": [0.25, 127 / 256, 255 / 256, 1.0, 2.0]})))


def test_attacks_in_another_precision_than_certification_are_noted() -> None:
    grid = GridConfig(name="g", blocks=[{"method": "gaussian", "sigma": 0.25}])
    attack: dict[str, Any] = {
        "attack": "pgd",
        "epsilon": 0.5,
        "num_steps": 2,
        "m_test": 1,
        "n": 100,
        "alpha": 0.001,
        "seed": 0,
    }
    attack["indices"] = {"start": 0}
    (note,) = notes(expand(grid, TRAIN, {**CERTIFY, "precision": "bfloat16"}, attack=attack))
    assert note.startswith("attacks and their PREDICT run in float32, certification in bfloat16")
    assert not list(notes(expand(grid, TRAIN, CERTIFY, attack=attack)))
