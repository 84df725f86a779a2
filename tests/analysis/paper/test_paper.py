import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.paper.__main__ import paper
from analysis.paper.declarations import parse_declarations
from analysis.paper.figures import trace_figure
from analysis.paper.records import SCHEMA, PaperRecords
from analysis.printed import printed_envelope, printed_models
from configs.composition import compose_config
from configs.entry import run_command
from jobs.errors import ConfigError, RecordError
from tests.analysis.models import cifar_path, cohen_path, model, write_log, write_predictions, write_text

PUBLISHED_LOGS = os.environ.get("PUBLISHED_LOGS", "")
"""A folder with the authors' logs, for the one test that needs them."""


def _rows(*radii: str) -> list[tuple[int, int, int, str]]:
    """Images 0, 20, ... of class 0: certified at a radius, or wrong where it begins with a minus."""
    return [(20 * nr, 0, int(text.startswith("-")), text.removeprefix("-")) for nr, text in enumerate(radii)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tree in the published layout, with everything that the figures on attacks take."""
    root = tmp_path_factory.mktemp("published") / "logs"
    for sigma in ("0.25", "0.50"):
        write_log(root, cohen_path(sigma), _rows("0.1", "0.3", "-0.2", "0.6"))
        write_log(root, cifar_path("PGD_2steps", 64, sigma), _rows("0.3", "0.3", "0.3", "0.6"))
        write_log(root, cifar_path("PGD_2steps", 255, sigma, 8), _rows("0.5", "0.5", "0.9", "0.9"))
        write_log(root, cifar_path("DDN_4steps", 64, sigma, 2), _rows("0.2", "0.2", "0.2", "-0.2"))
    write_log(root, cifar_path("PGD_4steps", 64, "0.25", 4), _rows("0.9", "0.9", "0.9", "0.9"))
    write_text(root, cifar_path("PGD_2steps", 512, "0.25", 8), "idx\tlabel\tpredict\tradius\tcorrect\ttime\n")
    write_log(root, cifar_path("PGD_2steps", 127, "0.25"), _rows("0.9"))
    for attack, radii in (("DDN_2steps", ("0.5", "0.5")), ("PGD_1step", ("1.0", "-0.5"))):
        path = f"data/certify/imagenet/{attack}/eps_255/resnet50/noise_0.50/test/sigma_0.50"
        write_log(root, path, _rows(*radii))
    write_log(root, "data_cohen/certify/imagenet/resnet50/noise_0.50/test/sigma_0.50", _rows("0.5", "-0.5"))
    for kind in ("with_noise", "without_noise"):
        path = cifar_path(f"PGD_2steps_baseAttackExp/{kind}", 64, "0.25")
        write_log(root, path, _rows("0.4", "0.4", "0.4", "0.4"))
    for n, name in ((100, "num_128"), (10_000, "num_128"), (10_000, "num_4"), (10_000, "base")):
        for epsilon, hits in (("0.000", 4), ("0.500", 2)):
            path = f"data/predict/predict_cifar_cohen/N{n}/PGD_{epsilon}/{name}/predictions"
            write_predictions(root, path, [(20 * nr, 0, int(nr >= hits)) for nr in range(4)])
            if name == "num_4":
                path = path.replace("N10000", "N10000_nogradtrick")
                write_predictions(root, path, [(20 * nr, 0, 0) for nr in range(4)])
    return root


@pytest.fixture(scope="module")
def drawn(source: Path) -> Path:
    """What the command makes of it, once for all tests."""
    assert _paper(source.parent, f"source={source}") == 0
    return source.parent / "results" / "paper"


def _paper(tmp_path: Path, *arguments: str) -> int:
    return run_command("paper", paper, [f"results={tmp_path}/results", *arguments])


def _table(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}_cifar10.csv", keep_default_na=False)


def test_everything_declared_is_drawn(drawn: Path) -> None:
    figures = [
        *("envelope_and_attack", "one_model_per_sigma", "envelope_per_sigma", "m_test", "vanilla", "m_train"),
        *("epsilon", "n_of_predict", "gradient_free"),
    ]
    for name in figures:
        assert (drawn / f"{name}_cifar10.pdf").read_bytes().startswith(b"%PDF"), name
        assert (drawn / f"{name}_cifar10.png").read_bytes().startswith(b"\x89PNG"), name
    for name in ("envelope", "models_2_steps", "models_pgd_2_steps_draws", "models_ddn_4_steps_draws"):
        assert "|" in (drawn / f"{name}_cifar10.md").read_text(), name
        assert r"\toprule" in (drawn / f"{name}_cifar10.tex").read_text(), name
    index = (drawn / "index.md").read_text()
    assert "Table 2" in index
    assert "no records for SmoothAdv empirical" in index


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tables=[{each: 5}]", r"tables\[0\]\.each: write a list of values, got 5"),
        ("tables=[{each: []}]", r"tables\[0\]\.each: write a list of values, got \[\]"),
        (
            "tables=[{name: t, title: T, kind: envelope, rows: 5}]",
            r"tables\[0\]\.rows: write a list of mappings, got 5",
        ),
        ("tables=[{name: t, title: T, kind: envelope, rows: [5]}]", r"tables\[0\]\.rows: write a list of mappings"),
        ("tables=[{name: t, title: T, kind: envelope, rows: [{5: x}]}]", r"tables\[0\]\.rows\[0\]: unknown key 5"),
        ("tables=[{each: [1], rows: 5}]", r"tables\[0\]\.rows: write a list of mappings, got 5"),
        ("tables=[{each: [1], rows: [{label: x, where: 5}]}]", r"tables\[0\]\.rows\[0\]\.where: .* got 5"),
    ],
)
def test_a_declaration_of_another_shape_is_bad_configuration(
    source: Path, tmp_path: Path, override: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _paper(tmp_path, f"source={source}", override) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("radii", "message"),
    [
        ("[0,1,0]", r"radii\.digits: .*step > 0"),
        ("[0,1,-1]", r"radii\.digits: .*step > 0"),
        ("[1,0,0.5]", r"radii\.digits: .*first <= last"),
        ("[-1,1,0.5]", r"radii\.digits: .*0 <= first"),
        ("[0,1,1e-9]", r"radii\.digits: .*at most 1000 radii"),
        ("[0,1e300,1e-300]", r"radii\.digits: .*at most 1000 radii"),
    ],
)
def test_radii_that_are_none_are_bad_configuration(
    source: Path, tmp_path: Path, radii: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "rows: [{label: x, where: {}}]"
    table = f"{{name: t, title: T, kind: envelope, radii: {{digits: {radii}}}, {rows}}}"
    assert _paper(tmp_path, f"source={source}", f"tables=[{table}]") == 2
    assert re.search(message, capsys.readouterr().err)


def test_curves_of_another_shape_are_bad_configuration() -> None:
    with pytest.raises(ConfigError, match=r"figures\[0\]\.curves: write a list of mappings, got 5"):
        parse_declarations([], [{"name": "f", "title": "F", "curves": 5}])


def test_an_envelope_takes_the_best_at_each_radius_and_leaves_out_what_the_authors_did(drawn: Path) -> None:
    ours = _table(drawn, "envelope").query("row == 'SmoothAdv'").set_index("radius")
    assert ours["num_certified"][[0.25, 0.5, 0.75, 1.0]].tolist() == [4, 4, 2, 0]  # not the 4 of T = 4, m = 4
    assert ours["paper"].tolist()[:3] == [0.74, 0.57, 0.48]
    assert ours["differs"].tolist()[0]
    assert "100 (paper 74)" in (drawn / "envelope_cifar10.md").read_text()


def test_the_best_of_each_column_is_bold_and_an_empty_log_is_a_row_of_dashes(drawn: Path) -> None:
    text = (drawn / "models_pgd_2_steps_draws_cifar10.md").read_text()
    best = next(line for line in text.splitlines() if "m = 8" in line and "sigma = 0.25, epsilon = 1.00" in line)
    assert best.count("**1.00**") == 3
    empty = next(line for line in text.splitlines() if "m = 8" in line and "sigma = 0.25, epsilon = 2.00" in line)
    assert [cell.strip() for cell in empty.split("|")[3:6]] == ["- (paper 0.61)", "- (paper 0.56)", "- (paper 0.51)"]
    assert "no records" in text


def test_imagenet_has_its_own_tables_and_radii(drawn: Path) -> None:
    ours = pd.read_csv(drawn / "envelope_imagenet.csv").query("row == 'SmoothAdv'").set_index("radius")
    assert ours.index.tolist() == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]
    assert ours["paper"].tolist() == [0.56, 0.43, 0.37, 0.27, 0.25, 0.20, 0.16]
    assert ours["accuracy"].tolist() == [1.0, 0.5, 0, 0, 0, 0, 0]
    single = pd.read_csv(drawn / "models_one_step_imagenet.csv").query("group == 'DDN' and num_images > 0")
    assert single["paper"].tolist()[:3] == [0.55, 0.49, 0.40]
    assert single["row"].unique().tolist() == ["sigma = 0.50, epsilon = 1.00"]
    assert (drawn / "envelope_per_sigma_imagenet.pdf").exists()


def test_images_of_another_split_are_never_taken_for_the_papers(tmp_path: Path) -> None:
    """Table 1's Cohen row is of test images, however many models were certified on more training images."""
    root = tmp_path / "logs"
    write_log(root, "data_cohen/certify/imagenet/resnet50/noise_0.50/test/sigma_0.50", _rows("1.0", "0.5"))
    for sigma in ("0.25", "0.50", "1.00"):
        path = f"data_cohen/certify/imagenet/resnet50/noise_{sigma}/train/sigma_{sigma}"
        write_log(root, path, _rows("0.5", "0.5", "0.5", "-0.5"))
    write_log(root, "data/certify/imagenet/PGD_1step/eps_255/resnet50/noise_0.50/test/sigma_0.50", _rows("1.5", "0.5"))
    assert _paper(tmp_path, f"source={root}") == 0
    table = pd.read_csv(tmp_path / "results" / "paper" / "envelope_imagenet.csv")
    cohen = table[table["row"] == "Cohen et al."]
    assert (cohen["paper"] * 100).round().tolist() == [49, 37, 29, 19, 15, 12, 9]
    assert cohen["num_images"].unique().tolist() == [2]
    assert cohen["num_certified"].tolist()[:2] == [2, 1]
    question = json.loads((tmp_path / "results" / "paper" / "question.json").read_text())
    assert (question["dataset"], question["selection"], question["confidence"]) == ("imagenet", "same", None)
    first = question["where"]["tables"][0]["rows"][0]
    assert first["where"] == {"method": "gaussian", "variant": "", "sigma_cert": "as_trained"}


def test_a_grid_of_ones_own_draws_every_figure_of_certified_accuracy(tmp_path: Path) -> None:
    """Models of a launched grid have no variant, and other T, m and epsilon than the paper's."""
    known: dict[str, Any] = {"dataset": "cifar10", "attack": "pgd", "num_steps": 3, "m_train": 2, "epsilon": 0.3}
    models = [
        model("gaussian", [0.1, 0.2], dataset="cifar10", attack="none", m_train=1, epsilon=0.0),
        model("one", [0.3, 0.4], **known),
        model("two", [0.4, 0.1], **{**known, "epsilon": 0.6}),
        model("vanilla", [0.2, 0.1], **{**known, "method": "vanilla", "sigma_train": 0.0}),
        model("noisy", [0.2, 0.1], **{**known, "method": "vanilla_noise"}),
    ]
    records = PaperRecords(models=tuple(models), predictions=pd.DataFrame(columns=SCHEMA.names), are_logs=False)
    values = compose_config("paper", [])
    _, figures = parse_declarations(values["tables"], values["figures"])
    drawn = {figure.name for one in figures if (figure := trace_figure(one, "cifar10", records))}
    names = ("envelope_and_attack", "one_model_per_sigma", "envelope_per_sigma", "vanilla", "m_train", "epsilon")
    assert drawn == {f"{name}_cifar10" for name in names}
    single = next(trace_figure(one, "cifar10", records) for one in figures if one.name == "one_model_per_sigma")
    assert single is not None
    assert single.curves[0].radii.tolist() == [0.0, 0.3, 0.4, 0.4]  # of "one", which is best on average


def test_accuracy_under_attack_is_the_share_predicted_right(drawn: Path) -> None:
    curves = _table(drawn, "n_of_predict")
    assert curves["curve"].unique().tolist() == ["n = 100", "n = 10000"]
    assert curves["accuracy"].tolist() == [1.0, 0.5, 1.0, 0.5]
    free = _table(drawn, "gradient_free")
    assert free[free["curve"].str.contains("7")]["accuracy"].tolist() == [1.0, 1.0]


def test_vanilla_and_noise_are_told_apart(drawn: Path) -> None:
    assert _table(drawn, "vanilla")["curve"].unique().tolist() == [
        "SmoothAdv",
        "Cohen et al.",
        "vanilla PGD + noise",
    ]


def test_short_logs_are_marked_and_kept_out_of_the_envelope(drawn: Path) -> None:
    assert "sigma = 0.25, epsilon = 0.50 (1 image)" in set(_table(drawn, "models_2_steps")["row"])
    assert "without 1 model certified on other images" in (drawn / "envelope_cifar10.md").read_text()


def test_the_same_declarations_draw_a_grid_of_ours(tmp_path: Path, undisturbed_results: Path) -> None:
    arguments = [f"results={undisturbed_results}", "grid=tiny", f"output={tmp_path}/out"]
    assert run_command("paper", paper, arguments) == 0
    assert (tmp_path / "out" / "envelope_digits.csv").exists()
    assert (tmp_path / "out" / "epsilon_digits.pdf").exists()
    assert not list((tmp_path / "out").glob("vanilla*"))


def test_a_figure_declared_by_the_user_is_drawn(tmp_path: Path, source: Path) -> None:
    values = compose_config("paper", [f"source={source}", f"results={tmp_path}/results"])
    values["tables"], values["figures"] = (
        [],
        [
            {
                "name": "own",
                "title": "Own",
                "curves": [{"kind": "certified", "label": "m = {m_train}", "where": {}, "by": "m_train"}],
            }
        ],
    )
    assert paper(values) == 0
    assert set(_table(tmp_path / "results" / "paper", "own")["curve"]) == {"m = 1", "m = 2", "m = 4", "m = 8"}


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"name": "Own Name"}, "name"),
        ({"curves": []}, "curves"),
        ({"curves": [{"kind": "certified", "label": "x", "where": {"sigma_trian": 1}}]}, "did you mean 'sigma_train'"),
        ({"curves": [{"kind": "empirical", "label": "x", "where": {"mtest": 1}}]}, "did you mean 'm_test'"),
        ({"curves": [{"kind": "certified", "label": "x", "where": {}, "by": "sgima"}]}, "unknown parameter 'sgima'"),
        ({"curves": [{"kind": "sure", "label": "x", "where": {}}]}, "'sure' is not valid"),
    ],
)
def test_wrong_declarations_are_named(tmp_path: Path, source: Path, declared: dict[str, object], message: str) -> None:
    values = compose_config("paper", [f"source={source}", f"results={tmp_path}/results"])
    curve = {"kind": "certified", "label": "x", "where": {}}
    values["figures"] = [{"name": "own", "title": "Own", "curves": [curve], **declared}]
    with pytest.raises(ConfigError, match=message):
        paper(values)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("arguments", [[], ["source=/nowhere"], ["source=.", "grid=x"], ["grid=x"]])
def test_bad_configuration(tmp_path: Path, arguments: list[str]) -> None:
    assert _paper(tmp_path, *arguments) == 2


def test_a_point_that_stands_for_several_attacks_is_refused(tmp_path: Path, source: Path) -> None:
    values = compose_config("paper", [f"source={source}", f"results={tmp_path}/results"])
    curve = {"kind": "empirical", "label": "all of them", "where": {"method": "gaussian"}}
    values["figures"] = [{"name": "own", "title": "Own", "needs": "empirical", "curves": [curve]}]
    with pytest.raises(RecordError, match="curve 'all of them': several predictions of one model"):
        paper(values)


def test_printed_numbers_are_those_of_the_paper() -> None:
    ours, cohen = printed_envelope("cifar10", "smoothadv"), printed_envelope("cifar10", "gaussian")
    assert ours is not None
    assert cohen is not None
    assert ours.percents == (74, 57, 48, 38, 33, 29, 24, 19, 17)
    assert cohen.percents == (60, 43, 32, 23, 17, 14, 12, 10, 8)
    assert ours.percent_at(0.5) == 57
    assert math.isnan(ours.percent_at(0.6))
    assert math.isnan(ours.percent_at(0.0))
    assert ours.percent_at(2.5) == 0.0
    models = printed_models()
    assert len(models) == 433
    assert all(
        math.isnan(row.percents[0]) or all(a >= b for a, b in zip(row.percents, row.percents[1:], strict=False))
        for row in models.values()
    )


@pytest.mark.skipif(not PUBLISHED_LOGS, reason="PUBLISHED_LOGS does not name a folder with the authors' logs")
def test_the_published_logs_give_the_printed_tables(tmp_path: Path) -> None:
    assert _paper(tmp_path, f"source={PUBLISHED_LOGS}") == 0
    tables = {path.stem: pd.read_csv(path) for path in (tmp_path / "results" / "paper").glob("*.csv")}
    printed = pd.concat([table.assign(table=name) for name, table in tables.items() if "paper" in table])
    printed = printed.dropna(subset=["paper", "accuracy"])
    assert printed["table"].str.endswith("_cifar10").sum() == 5178
    different = printed[printed["differs"].astype(bool)]
    assert different.empty, different.to_string()
