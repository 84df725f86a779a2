"""Counts agree with their nouns, and paragraphs fit the terminal."""

import shlex
import sys

import pytest

from jobs.wording import columns, counted, fitted, say, shortened, wrapped


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 models"), (1, "1 model"), (2, "2 models"), (15_000, "15,000 models")]
)
def test_a_count_agrees_with_its_noun(number: int, text: str) -> None:
    assert counted(number, "model") == text


def test_an_irregular_plural_is_given() -> None:
    assert [counted(number, "copy", "copies") for number in (1, 2)] == ["1 copy", "2 copies"]


@pytest.mark.parametrize(("terminal", "expected"), [("60", 60), ("80", 80), ("200", 100)])
def test_text_is_as_wide_as_the_terminal_and_at_most_100(
    terminal: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", terminal)
    assert columns() == expected
    lines = wrapped("word " * 100, indent="  ").splitlines()
    assert expected - 5 < max(len(line) for line in lines) <= expected
    assert all(line.startswith("  word") for line in lines[1:])


def test_a_long_path_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    path = "results/grids/a-long-name/envelope/envelope.csv"
    assert wrapped(f"wrote the table to {path}").splitlines() == ["wrote the table to", path]


def test_a_line_fits_where_the_width_is_known(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "note: a line that is longer than forty characters\n    and one that is indented and longer, too"
    monkeypatch.delenv("COLUMNS", raising=False)
    say(text)
    assert capsys.readouterr().out == f"{text}\n", "a log keeps its lines whole"
    monkeypatch.setenv("COLUMNS", "40")
    say(text, sys.stderr)
    assert capsys.readouterr().err.splitlines() == [
        "note: a line that is longer than forty",
        "  characters",
        "    and one that is indented and longer,",
        "      too",
    ]


def test_a_command_that_is_broken_up_can_still_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    command = "python -m pipeline.status grid=a-grid results='/a folder' watch=true"
    first, *rest = fitted(f"follow: {command}", sys.stdout).splitlines()
    assert first == "follow:"
    assert all(len(line) <= 50 for line in rest)
    assert shlex.split("\n".join(rest).replace("\\\n", "")) == shlex.split(command)
    assert fitted("next: python -m pipeline.status grid=a", sys.stdout) == "next: python -m pipeline.status grid=a"


def test_a_long_path_keeps_its_end() -> None:
    assert shortened("noise_0.25/sigma_0.50", 21) == "noise_0.25/sigma_0.50"
    assert shortened("noise_0.25/sigma_0.50", 20) == "...e_0.25/sigma_0.50"
