import pytest

from jobs.errors import ConfigError, refuse


def test_all_problems_are_refused_at_once_and_each_is_named_once() -> None:
    with pytest.raises(ConfigError) as caught:
        refuse(["certify.n: 0", "train.sigma: -1", "certify.n: 0"])
    assert caught.value.problems == ["certify.n: 0", "train.sigma: -1"]


def test_no_problem_is_not_refused() -> None:
    refuse(iter(()))
