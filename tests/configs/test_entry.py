import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from configs.composition import compose_config
from configs.entry import EXIT_CONFIG, EXIT_INTERRUPTED, help_text, run_command
from configs.files import CONFIG_DIR, options_of
from jobs.errors import ConfigError
from pipeline.request.config import parse_launch


@pytest.mark.parametrize("cluster", options_of("cluster"))
def test_every_cluster_composes(cluster: str) -> None:
    parse_launch(compose_config("launch", ["grid=digits", f"cluster={cluster}"]))


def test_a_misspelt_key_gets_the_right_suggestion_only() -> None:
    with pytest.raises(ConfigError) as caught:
        compose_config("launch", ["grid=digits", "train.epoch=3"])
    (problem,) = caught.value.problems
    assert problem.startswith("train: unknown key 'epoch' (did you mean 'epochs'?); valid: architecture, dataset, ")
    assert "+" not in problem


def test_digits_holds_the_baseline_and_the_cube() -> None:
    runs = parse_launch(compose_config("launch", ["grid=digits"])).manifest.runs
    cube = {(r.train.sigma, r.train.epsilon, r.train.m_train) for r in runs if r.train.method == "smoothadv"}
    assert {r.train.sigma for r in runs if r.train.method == "gaussian"} == {0.12, 0.25, 0.5}
    assert [len({point[axis] for point in cube}) for axis in range(3)] == [3, 3, 3]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "grid is required; write grid=NAME; valid: "),
        (["grid=digit"], "unknown grid 'digit' (did you mean 'digits'?); valid: "),
        (["grid=digits", "trian.epochs=3"], "unknown key 'trian.epochs' (did you mean 'train.epochs'?)"),
        (["grid=digits", "train.zzz=3"], "train: unknown key 'zzz'; valid: architecture, dataset, epochs, "),
        (["grid=digits", "grid.name.x=3"], "unknown key 'grid.name.x' (did you mean 'grid.name'?)"),
        (["grid=digits", "attack.m_test=8"], "attack.m_test: the chosen attack has no keys; choose another"),
        (["grid=digits", "cluster.extra.hold=1"], "cluster.extra.hold is not in the chosen files; write +cluster"),
        (["grid=digits", "cluster=slrum"], "unknown cluster 'slrum'"),
        (["grid=digits", "=="], "cannot parse the argument '=='; write key=value"),
        (["grid=digits,cifar_full"], "grid=digits,cifar_full: only one value is possible"),
        (["grid=digits", "train.epochs=1,2"], "train.epochs=1,2: only one value is possible"),
        (["grid=digits", "train.num_processes=2"], "not in the chosen files; write +train.num_processes=2"),
        (["grid=digits", "grid.blocks={sigma: 1}"], "grid.blocks={sigma: 1}: grid.blocks is a list; write"),
        (["grid=pretrained"], "train.checkpoint: a value is required; write train.checkpoint=VALUE"),
        (["grid=digits", "hydra.run.dir=elsewhere"], "hydra.run.dir=elsewhere: hydra.searchpath is the only setting"),
    ],
)
def test_a_bad_command_line_names_the_valid_choices(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_config("launch", overrides)
    assert any(message in problem for problem in caught.value.problems)


@pytest.mark.parametrize(
    "path",
    ["run (1)", "a#b", "a!b", "a;b", "a{b", 'a"b', "a'b", "a,b", "aé", "a=b", "a[1]", "a~b", "a&b", "a\\", "7", "[x]"],
)
def test_a_path_is_taken_as_it_is_written(path: str) -> None:
    assert compose_config("status", ["grid=x", f"results={path}"])["results"] == path
    assert compose_config("launch", ["grid=digits", f"data.imagenet={path}"])["data"]["imagenet"] == path
    assert compose_config("paper", [f"source={path}", f"output={path}"])["source"] == path


@pytest.mark.parametrize("path", ["a,b=c/d (1).pth.tar", "a b", "[x]", "5"])
@pytest.mark.parametrize("plus", ["", "++"])
def test_a_checkpoint_s_path_is_taken_as_it_is_written(path: str, plus: str) -> None:
    values = compose_config("launch", ["grid=pretrained", f"{plus}train.checkpoint={path}"])
    assert values["train"]["checkpoint"] == path


def test_a_path_may_begin_with_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    values = compose_config("launch", ["grid=digits", "results=~/r", "data.imagenet=~/i", "data.cifar10=a~b"])
    assert (values["results"], values["data"]["imagenet"]) == (f"{tmp_path}/r", f"{tmp_path}/i")
    assert values["data"]["cifar10"] == "a~b"


@pytest.mark.parametrize(
    ("override", "blocks"),
    [
        ("train.sigma=0.5", "grid.blocks[0], grid.blocks[1], grid.blocks[2], grid.blocks[3], grid.blocks[4]"),
        ("+train.sigma=0.5", "grid.blocks[0], grid.blocks[1], grid.blocks[2], grid.blocks[3], grid.blocks[4]"),
        ("++train.m_train=2", "grid.blocks[1], grid.blocks[2]"),
        ("certify.sigma_cert=0.5", "grid.blocks[3]"),
    ],
)
def test_what_blocks_set_themselves_cannot_be_set_for_all(override: str, blocks: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_config("launch", ["grid=digits", override])
    (problem,) = caught.value.problems
    axis = override.split(".")[1].split("=")[0]
    assert problem.startswith(f"{override} has no effect, because blocks of the grid set {axis} ")
    assert f"({blocks})" in problem


def test_blocks_of_the_command_line_count_too() -> None:
    block = "grid.blocks=[{method: gaussian, sigma: 0.5, architecture: [linear]}]"
    with pytest.raises(
        ConfigError, match=r"model=digits_cnn has no effect, because blocks of the grid set architecture .*blocks\[0\]"
    ):
        compose_config("launch", ["grid=digits", block, "model=digits_cnn"])
    compose_config("launch", ["grid=digits", block, "train.epochs=2", "+train.inverse_temperature=1.0"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# @package _global_\ngrid:\n  blocks:\n  - {sigma: [0.25}", 'site/grid/mine.yaml", line 4'),
        (
            "# @package _global_\ngrid:\n\t- x",
            'that cannot start any token in ... site/grid/mine.yaml", line 3, column 1',
        ),
        ("# @package _global_\ngrid: {name: x, name: y}", "found duplicate key name"),
        ("# @package _global_\n# \xff", "not valid YAML: 'utf-8' codec can't decode"),
        ("grid: {name: mine, blocks: []}", "grid: the first line of its file must be: # @package _global_"),
        ("# @package _global_\ndefaults:\n- override /train: digit", "Could not find 'train/digit'; Available options"),
        ("# @package _global_\ngrid: 5", "grid: write keys with values, got 5"),
        ("# @package _global_\ngrid:", "grid: write keys with values, got None"),
        ("- x", "grid: write keys with values, got ['x']"),
        (
            "# @package _global_\ntrain:\ngrid: {name: x, blocks: [{sigma: 1}]}",
            "train: write keys with values, got None",
        ),
    ],
)
def test_a_grid_file_with_a_slip_is_bad_configuration(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "site" / "grid" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode("latin-1"))
    overrides = ["grid=mine", f"hydra.searchpath=[file://{tmp_path / 'site'}]"]
    assert run_command("launch", lambda values: bool(parse_launch(values)), overrides) == EXIT_CONFIG
    errors = capsys.readouterr().err
    assert all(part in errors for part in message.split(" ... "))


def test_what_is_required_may_be_set_by_every_block() -> None:
    block = "{checkpoint: A.pth.tar, sigma: 0.25}"
    values = compose_config("launch", ["grid=pretrained", f"grid.blocks=[{block}]"])
    assert values["grid"]["blocks"][0]["checkpoint"] == "A.pth.tar"
    with pytest.raises(ConfigError, match=r"train\.checkpoint: a value is required"):
        compose_config("launch", ["grid=pretrained", f"grid.blocks=[{block}, {{sigma: 0.5}}]"])


def test_a_path_may_be_null_or_quoted() -> None:
    values = compose_config("paper", ["source='a, b'", "output=null"])
    assert (values["source"], values["output"]) == ("a, b", None)


def test_a_view_takes_any_grid_s_name() -> None:
    assert compose_config("status", ["grid=not-in-configs"])["grid"] == "not-in-configs"


def test_help_lists_commands_groups_and_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("launch", lambda _: 1, ["--help"]) == 0
    text = capsys.readouterr().out
    for expected in ("python -m pipeline.launch grid=NAME", "Exit codes:", "cluster   auto, debug, local", "dry_run"):
        assert expected in text
    assert "failed twice for" in text  # a comment that continues on another line
    assert "cifar10_images: ${oc.env:" in text  # a key of a key
    assert "defaults" not in text.replace("their defaults", "")


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIG_DIR.glob("*.yaml")))
def test_help_fits_into_80_columns(name: str) -> None:
    assert max(map(len, help_text(name).splitlines())) <= 80


def test_an_unknown_option_is_named_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("launch", lambda _: 1, ["--dry-run", "grid=digits"]) == EXIT_CONFIG
    assert capsys.readouterr().err == "error: unknown option --dry-run; write key=value; --help lists the keys\n"


def test_cfg_prints_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("launch", lambda _: 1, ["grid=digits", "certify.n0=77", "--cfg", "job"]) == 0
    assert "  n0: 77\n" in capsys.readouterr().out


def test_config_errors_are_printed_one_a_line_with_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(_: dict[str, Any]) -> int:
        raise ConfigError(["first", "second"])

    assert run_command("launch", refuse, ["grid=digits"]) == EXIT_CONFIG
    assert capsys.readouterr().err == "error: first\nerror: second\n"


def test_an_interrupt_says_how_to_resume(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_: dict[str, Any]) -> int:
        raise KeyboardInterrupt

    assert run_command("launch", interrupt, ["grid=digits"]) == EXIT_INTERRUPTED
    assert "run the same command again to resume" in capsys.readouterr().err


COMMANDS = [
    *("pipeline.launch", "pipeline.status", "pipeline.cancel", "pipeline.verify", "analysis.envelope"),
    *("analysis.paired", "analysis.report", "analysis.paper", "analysis.import_logs", "analysis.export_tsv"),
]


SLOW = {"torch", "sklearn", "scipy.special", "scipy.stats", "matplotlib", "submitit", "pandas"}


def test_entries_import_late_what_takes_its_time() -> None:
    """All in one process, those of pipeline first: the others may import pandas."""
    names = [f"{name}.__main__" if name in ("analysis.paper", "analysis.report") else name for name in COMMANDS]
    program = "import importlib, sys\nfor name in sys.argv[1:]: print(importlib.import_module(name), *sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, *names], check=True, capture_output=True, text=True)
    for name, line in zip(names, done.stdout.splitlines(), strict=True):
        absent = SLOW | ({"pandas"} if name.startswith("pipeline") else set())
        assert not absent.intersection(line.split()), name


def test_status_imports_nothing_that_it_does_not_show(undisturbed_results: Path) -> None:
    arguments = ["grid=tiny", f"results={undisturbed_results}"]
    program = (
        "import sys; from configs.entry import run_command; from pipeline.status import status\n"
        f"run_command('status', status, {arguments!r}); print('imported', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "images certified: 63 of 63" in done.stdout
    assert not (SLOW | {"scipy"}).intersection(done.stdout.partition("imported ")[2].split())


@pytest.mark.parametrize(
    ("name", "module"), [("envelope", "analysis.envelope"), ("report", "analysis.report.__main__")]
)
def test_a_grid_is_shown_without_pandas(name: str, module: str, undisturbed_results: Path, tmp_path: Path) -> None:
    arguments = ["grid=tiny", f"results={undisturbed_results}", f"output={tmp_path / 'out'}"]
    program = (
        f"import sys; from configs.entry import run_command; from {module} import {name}\n"
        f"assert run_command({name!r}, {name}, {arguments!r}) == 0; print('imported', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "pandas" not in done.stdout.partition("imported ")[2].split()


def test_output_that_a_full_disk_refuses_is_one_line_and_a_failure() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "pipeline.status", "--cfg", "job", "grid=NAME"]
        done = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "error: [Errno 28] No space left on device\n")


@pytest.mark.parametrize("module", COMMANDS)
def test_help_imports_nothing_that_takes_its_time(module: str) -> None:
    heavy = {"pandas", "scipy", "pyarrow", "numpy", "torch", "hydra", "omegaconf", "pydantic", "matplotlib"}
    command = [sys.executable, "-X", "importtime", "-m", module, "--help"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert f"python -m {module}" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "configs.entry" in imported
    assert not imported & heavy
