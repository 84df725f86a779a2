"""The command smoothadv, and what is a user's own on a command line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from configs.command import SUMMARIES, commands, completion
from configs.composition import compose_config
from configs.files import CONFIG_DIR
from jobs.errors import ConfigError

ROOT = CONFIG_DIR.parent


def test_every_command_of_the_package_has_a_name() -> None:
    assert {"launch", "status", "cancel", "envelope", "export-tsv", "import-logs", "paired", "paper", "report"} < set(
        commands()
    )
    assert list(SUMMARIES) == list(commands())
    for module in commands().values():
        path = ROOT.joinpath(*module.split("."))
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["launhc"], 2, "unknown command 'launhc' (did you mean 'launch'?)"),
        (["completion", "fish"], 2, "use bash or zsh"),
        (["status"], 2, "grid is required; write grid=NAME"),
        (["--help"], 0, "  launch          train and certify a grid"),
    ],
)
def test_what_a_command_line_says(arguments: list[str], code: int, message: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "configs.command", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert message in done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="completion is tried in bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["smoothadv", "lau"], {"launch"}),
        (["smoothadv", "launch", "grid=digi"], {"digits"}),
        (["smoothadv", "launch", "cluster=sl"], {"slurm"}),
    ],
)
def test_bash_completes_commands_and_options(words: list[str], expected: set[str]) -> None:
    line = " ".join(words)
    # As readline hands them over: "=" ends a word.
    parts = " ".join(line.replace("=", " = ").split())
    script = f"""{completion("bash")}
COMP_WORDS=({parts}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_LINE="{line}"; COMP_POINT={len(line)}
_smoothadv; printf '%s\\n' "${{COMPREPLY[@]}}" """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == expected


@pytest.mark.parametrize("name", ["jobs", "configs", "smoothing"])
def test_a_foreign_package_of_the_same_name_ends_the_command(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    for module in ("pipeline.launch", "analysis.envelope"):
        done = subprocess.run(
            [sys.executable, "-m", module, "grid=digits"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert f"error: Python finds the package {name} at {tmp_path / name} instead of {ROOT / name}" in " ".join(
            done.stderr.split()
        )


GRID = """# @package _global_
defaults:
  - override /train: TRAIN
grid:
  name: mine
  blocks:
    - {method: gaussian, sigma: 0.25}
"""


def test_a_grid_file_may_be_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "digits.yaml"  # called like one of ours
    path.write_text(GRID.replace("TRAIN", "digits"))
    config = compose_config("launch", [f"grid={path}", "train.epochs=2"])
    assert config["grid"]["name"] == "mine"
    assert config["train"]["epochs"] == 2
    with pytest.raises(ConfigError, match=r"grid=nowhere\.yaml: no such file"):
        compose_config("launch", ["grid=nowhere.yaml"])


def test_a_folder_of_ones_own_adds_options(tmp_path: Path) -> None:
    for group, name, text in (
        ("grid", "mine", GRID.replace("TRAIN", "short")),
        ("train", "short", "defaults: [digits, _self_]\nepochs: 3\n"),
    ):
        (tmp_path / group).mkdir()
        (tmp_path / group / f"{name}.yaml").write_text(text)
    config = compose_config("launch", ["grid=mine"], tmp_path)
    assert (config["grid"]["name"], config["train"]["epochs"]) == ("mine", 3)
    with pytest.raises(ConfigError, match=r"unknown grid 'mind' .did you mean 'mine'.*digits.*mine"):
        compose_config("launch", ["grid=mind"], tmp_path)
    (tmp_path / "train" / "digits.yaml").touch()
    with pytest.raises(ConfigError, match="a train named digits already exists in this package; rename"):
        compose_config("launch", ["grid=mine"], tmp_path)
    with pytest.raises(ConfigError, match="nowhere is not a folder"):
        compose_config("launch", ["grid=digits"], Path("nowhere"))


def test_a_model_may_be_named_by_its_function() -> None:
    config = compose_config("launch", ["grid=digits", "model=mylab.nets:build"])
    assert config["train"]["architecture"] == "mylab.nets:build"


def test_a_grid_file_may_set_what_belongs_to_no_group() -> None:
    assert compose_config("launch", ["grid=field_digits"])["plugins"] == ["examples/methods"]
    assert compose_config("launch", ["grid=field_digits", "plugins=[own]"])["plugins"] == ["own"]
