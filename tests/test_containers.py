"""Dockerfile and apptainer.def, read and not built: their base is pinned, and their steps and commands exist."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
RECIPE = (ROOT / "apptainer.def").read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile."""
    lines = [line for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def sections() -> dict[str, str]:
    """The sections of the recipe by name."""
    found = re.findall(r"^%(\w+)\n(.*?)(?=^%|\Z)", RECIPE, flags=re.MULTILINE | re.DOTALL)
    return dict(found)


def made_by(script: str) -> str:
    """What a shell script would run; make only says it."""
    script = script.replace("/smoothadv", str(ROOT)).replace("exec ", "")
    command = ["sh", "-ec", f'make() {{ command make --dry-run --always-make "$@"; }}\n{script}']
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_both_start_from_one_image_of_a_supported_python() -> None:
    (image,) = [rest for name, rest in instructions() if name == "FROM"]
    assert f"From: {image}\n" in RECIPE
    version = re.fullmatch(r"python:(3\.\d+)\.\d+-slim-[a-z]+", image)
    assert version is not None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == f">={version[1]}"


def test_every_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [re.fullmatch(r"([\w.-]+)==[\w.!+-]+", line) for line in lines if not line.startswith("#")]
    pinned = {canonical(pin[1]) for pin in pins if pin is not None}
    assert len(pinned) == len(pins)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert {canonical(re.split(r"[\[><=]", one)[0]) for one in needed} <= pinned


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_steps_of_both_install_the_pinned_versions_and_nothing_else() -> None:
    steps = [rest for name, rest in instructions() if name == "RUN"]
    post = [line.strip() for line in sections()["post"].splitlines() if not line.strip().startswith("#")]
    # An image of apptainer is built where the files are, and cannot be written to when it runs.
    own = ["cd /smoothadv", "rm -rf .venv results", "mkdir -p results"]
    assert [step for step in post if step and step not in own] == steps
    (system,) = [step for step in steps if "apt-get" in step]
    assert re.fullmatch(
        r"apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/\*", system
    )


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_both_run_the_demo() -> None:
    assert {name for name, _ in instructions()} == {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "CMD"}
    install = made_by("make .venv/installed")
    assert "pip install --quiet --constraint constraints.txt --editable '.[dev]'" in install
    (command,) = [json.loads(rest) for name, rest in instructions() if name == "CMD"]
    demo = made_by(" ".join(command))
    assert (
        ".venv/bin/python -m pipeline.launch grid=digits cluster=local\n.venv/bin/python -m analysis.envelope" in demo
    )
    assert made_by(sections()["runscript"]) == demo


def test_both_copy_everything_to_one_folder_and_find_the_same_commands() -> None:
    given, own = dict(instructions()), {name: text.strip() for name, text in sections().items()}
    assert (given["WORKDIR"], given["COPY"]) == ("/smoothadv", ". .")
    assert own["files"] == ". /smoothadv"
    assert own["runscript"].startswith("cd /smoothadv\n")
    assert own["environment"] == f"export {given['ENV']}"


def test_nothing_made_on_this_machine_is_copied() -> None:
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    names = {line.strip("/!*").removesuffix("/") for line in kept}
    missing = {line.strip("/!*").removesuffix("/") for line in ignored} - names
    assert {name for name in missing if not name.endswith("_cache")} == set()
