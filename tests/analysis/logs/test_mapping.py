from pathlib import Path, PurePosixPath

import pytest

from analysis.logs.mapping import LogMapping, read_mapping
from jobs.errors import ConfigError


def test_the_later_pattern_goes_first() -> None:
    mapping = LogMapping(
        {
            "runs/**": {"dataset": "cifar10", "method": "mine", "n": 1000, "sigma_train": 1},
            "runs/*/noise_{sigma_cert}.tsv": {"split": "test"},
            "runs/old/*": {"method": "yours"},
        }
    )
    fields = mapping.fields_of(PurePosixPath("runs/old/noise_0.25.tsv"))
    assert fields == {
        **{"dataset": "cifar10", "method": "yours", "n": 1000, "sigma_train": 1.0},
        **{"split": "test", "sigma_cert": 0.25},
    }
    assert isinstance(fields["sigma_train"], float)
    assert mapping.fields_of(PurePosixPath("runs/a/b/noise_0.25.tsv"))["method"] == "mine"
    assert "sigma_cert" not in mapping.fields_of(PurePosixPath("runs/a/noise_big.tsv"))
    assert mapping.fields_of(PurePosixPath("elsewhere")) == {}
    mapping.check_used()


def test_a_pattern_that_matches_no_log_is_a_slip() -> None:
    mapping = LogMapping({"a/*": {"split": "test"}, "b/*": {"split": "test"}})
    mapping.fields_of(PurePosixPath("a/x"))
    with pytest.raises(ConfigError, match=r"mapping: 'b/\*' matches no log"):
        mapping.check_used()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "write lines such as"),
        ("a: 5", "write lines such as"),
        ("a: [", "cannot read"),
        ('"a": {sgima_cert: 0.5}', "unknown column 'sgima_cert' .did you mean 'sigma_cert'"),
        ('"a": {n: many}', "n: 'many' is not of type int32"),
        ('"a": {radius: 0.5}', "unknown column 'radius'"),
        ('"a": {split: null}', "split: None is not of type string"),
    ],
)
def test_what_is_no_mapping_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mapping.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_mapping(str(path))


def test_a_mapping_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mapping: cannot read"):
        read_mapping(str(tmp_path / "none.yaml"))
    assert read_mapping(None).fields_of(PurePosixPath("x")) == {}
