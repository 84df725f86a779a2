"""The documents against the tree: links resolve, and what they name exists."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pytest
import yaml

from jobs.files.failures import FailureClass
from jobs.files.imported import PREDICTIONS
from jobs.files.layouts import ATTACK, CERTIFICATION
from jobs.specs.attack import AttackSpec
from jobs.specs.certify import CertifySpec
from jobs.specs.train import TrainSpec
from jobs.specs.units import STAGES
from pipeline.retry import TRANSIENT

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
PACKAGES = ("smoothing", "jobs", "configs", "pipeline", "analysis", "benchmarks", "tests")
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "results/README.md"]
TEXTS = [*DOCUMENTS, ROOT / "Makefile", *CONFIGS.rglob("*.yaml"), *CONFIGS.rglob("*.py")]
CLUSTER_DOCUMENT = ROOT / "docs/cluster.md"
COMMAND = r"python -m (?:pipeline|analysis)\.(\w+)([^`#\n]*)"
PLACEHOLDERS = {"key", "GROUP", "NAME", "SITE", "mine", "mysite", "workstation"}
"""Keys and options that stand for others, or for files that the reader is to write."""


def named(document: Path) -> str:
    return str(document.relative_to(ROOT))


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_relative_links_resolve(document: Path) -> None:
    links = re.findall(r"(?:\]\(|src=\")([^)\s\"]+)", document.read_text(encoding="utf-8"))
    for link in links:
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_index_lists_every_document() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    assert all(f"]({path.name})" in index for path in ROOT.glob("docs/*.md") if path.name != "README.md")


def test_the_layout_names_every_package() -> None:
    layout = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Layout\n\n```\n")[2].partition("\n```")[0]
    rooms, parent = set(), ""
    for indent, name in re.findall(r"^( *)([a-z]+)/ ", layout, flags=re.MULTILINE):
        parent = parent if indent else name
        rooms.add(f"{parent}/{name}" if indent else name)
    packages = {named(path.parent) for name in PACKAGES for path in ROOT.glob(f"{name}/**/__init__.py")}
    assert {package for package in packages if not package.startswith("tests/")} <= rooms
    assert all((ROOT / room).is_dir() for room in rooms)
    assert len(layout.splitlines()) <= 25


def test_paragraphs_of_the_readme_are_short() -> None:
    text = re.sub(r"```.*?```", "", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    paragraphs = [lines for lines in text.split("\n\n") if not lines.lstrip().startswith(("|", "-", "#"))]
    assert max(len(lines.strip().splitlines()) for lines in paragraphs) <= 5


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_paths_and_modules_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    paths = re.findall(rf"(?<![\w/.])((?:{'|'.join([*PACKAGES, 'docs'])})/[\w./-]*\w)", text)
    if document.parent.name == "results":
        paths = [path for path in paths if path.endswith(".py")]  # its folders are those of the results
    missing = [path for path in paths if Path(path).stem not in PLACEHOLDERS and not (ROOT / path).exists()]
    modules = re.findall(rf"(?<![\w/.])((?:{'|'.join(PACKAGES)})(?:\.[a-z_]\w*)+)", text)
    missing += [module for module in modules if not module.endswith((".md", ".yaml")) and not is_module(module)]
    assert not missing


def is_module(name: str) -> bool:
    """Whether a dotted name is that of a module or package of the tree."""
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def cluster_defaults() -> dict[str, object]:
    """The options of all kinds of clusters and their defaults: ``{"poll_s": 10.0, "train.gpus": 1}``."""
    values: dict[str, Any] = {}
    for name in ("local", "slurm"):
        values |= yaml.safe_load((CONFIGS / f"cluster/{name}.yaml").read_text(encoding="utf-8"))
    del values["defaults"]
    return dict(flat(values))


def flat(values: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if key in STAGES:
            yield from ((f"{key}.{name}", inner) for name, inner in value.items())
        else:
            yield key, value


def rows(document: Path, *, heading: str, after: str = "\n") -> list[list[str]]:
    """The cells of the table whose first line begins with ``heading``, the first one after a text."""
    lines = iter(document.read_text(encoding="utf-8").split(after, 1)[-1].splitlines())
    header = next(line for line in lines if line.startswith(heading))
    next(lines)
    table = []
    for line in lines:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    assert all(len(row) == header.count("|") - 1 for row in table)
    return table


def documented_options() -> dict[str, object]:
    """What docs/cluster.md says are the options and their defaults."""
    options: dict[str, object] = {}
    for names, default, _ in rows(CLUSTER_DOCUMENT, heading="| option | default |"):
        options |= dict.fromkeys(re.findall(r"`(\w+)`", names), yaml.safe_load(default.strip("`")))
    stages = "| option | `train` |"
    for names, *defaults in rows(CLUSTER_DOCUMENT, heading=stages):
        for name in re.findall(r"`(?:cluster\.STAGE\.)?(\w+)`", names):
            for stage, default in zip(STAGES, defaults, strict=True):
                options[f"{stage}.{name}"] = yaml.safe_load(default.strip("`"))
    return options


def test_every_option_of_a_cluster_is_documented_with_its_default() -> None:
    assert documented_options() == cluster_defaults()


KINDS = {"Certification records": CERTIFICATION, "Attack records": ATTACK, "Imported records": PREDICTIONS}


@pytest.mark.parametrize("heading", KINDS)
def test_every_column_of_a_record_is_explained_with_its_type(heading: str) -> None:
    explained: dict[str, str] = {}
    for names, types, meaning in rows(ROOT / "results/README.md", heading="| column |", after=f"## {heading}"):
        columns = names.split(", ")
        per_column = types.split(", ") if ", " in types else [types] * len(columns)
        explained |= dict(zip(columns, per_column, strict=True))
        assert meaning
    assert explained == {field.name: short(field.type) for field in KINDS[heading].schema}


def short(column_type: pa.DataType) -> str:
    """A type of pyarrow as results/README.md names it."""
    if pa.types.is_list(column_type):
        return f"list of {short(column_type.value_type)}"
    return str(column_type)


def test_every_class_of_failures_is_documented() -> None:
    text = (ROOT / "docs/cluster-behaviour.md").read_text(encoding="utf-8")
    listed = text.partition("\nClasses of failures: ")[2].partition(".")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == set(get_args(FailureClass))
    launch = (CONFIGS / "launch.yaml").read_text(encoding="utf-8")
    retry = launch.partition("a class of failures (")[2].partition(")")[0]
    assert set(re.findall(r"\w+", retry)) == set(get_args(FailureClass)) - TRANSIENT


@cache
def known_keys() -> set[str]:
    """The keys of the groups that documents name with their group: ``train.precision``, ``cluster.train.gpus``."""
    known = {f"cluster.{key}" for key in (*STAGES, *cluster_defaults())}
    for group, spec in {"train": TrainSpec, "certify": CertifySpec, "attack": AttackSpec}.items():
        known |= {f"{group}.{field.name}" for field in fields(spec)}
        for path in CONFIGS.glob(f"{group}/*.yaml"):
            for key, value in yaml.safe_load(path.read_text(encoding="utf-8")).items():
                known |= {f"{group}.{key}"}
                known |= {f"{group}.{key}.{inner}" for inner in value} if isinstance(value, dict) else set()
    return known


@pytest.mark.parametrize("text", TEXTS, ids=named)
def test_keys_that_are_named_exist(text: Path) -> None:
    groups = r"(?<![\w/.])(?:train|certify|attack|cluster)"
    mentioned = set(re.findall(rf"{groups}(?:\.[a-z_]\w*)+", text.read_text(encoding="utf-8")))
    files = {key for key in mentioned if key.endswith((".py", ".yaml", ".md"))}
    assert {key for key in mentioned - files if not key.startswith("cluster.extra.")} <= known_keys()


@pytest.mark.parametrize("text", TEXTS, ids=named)
def test_arguments_of_commands_exist(text: Path) -> None:
    for name, arguments in re.findall(COMMAND, text.read_text(encoding="utf-8")):
        config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
        groups = {group for entry in config.pop("defaults", []) if isinstance(entry, dict) for group in entry}
        for key, value in re.findall(r"(?<=[\s\"\[+])([a-z_][\w.]*)=([^\s\]\"]*)", arguments):
            assert key.partition(".")[0] in {*groups, *config, *PLACEHOLDERS}, f"{name}: {key}"
            if key in groups and value not in PLACEHOLDERS:
                assert (CONFIGS / key / f"{value}.yaml").exists(), f"{name}: {key}={value}"
