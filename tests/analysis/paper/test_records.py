"""Our own attacks, drawn by the declarations of the paper's figures."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from analysis.paper.__main__ import paper
from configs.composition import compose_config
from configs.entry import run_command
from jobs.errors import ConfigError, RecordError
from jobs.files import records
from jobs.files.layouts import ATTACK
from jobs.files.store import Store
from jobs.specs.runs import Place
from pipeline.launch import launch
from tests.grids import compose_tiny

ATTACKS = [
    "attack=digits",
    "attack.attack=[pgd,vanilla,stein,stein_hard]",
    "attack.m_test=1",
    "attack.epsilon=[0.0,0.5]",
    "attack.num_steps=2",
    "attack.n=[20,50]",
    "attack.indices={start: 0, stop: 6, step: 1}",
    "certify.indices.stop=4",
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny grid, attacked."""
    folder = tmp_path_factory.mktemp("attacked") / "results"
    assert launch(compose_tiny(folder, "cluster=debug", *ATTACKS)) == 0
    return folder


@pytest.fixture(scope="module")
def attacked(results: Path) -> pd.DataFrame:
    frame: pd.DataFrame = records.read_records(Store(results).records_path("tiny", "attack"), ATTACK).to_pandas()
    return frame


@pytest.fixture(scope="module")
def drawn(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("drawn")
    assert run_command("paper", paper, [f"results={results}", "grid=tiny", f"output={out}"]) == 0
    return out


def _curve(drawn: Path, figure: str, label: str) -> dict[float, float]:
    points = pd.read_csv(drawn / f"{figure}_digits.csv").query("curve == @label")
    return dict(zip(points["radius"], points["accuracy"], strict=True))


def _best(attacked: pd.DataFrame, method: str, attack: str, n: int) -> dict[float, float]:
    """By hand: per radius, the largest share of images predicted right by any one model."""
    rows = attacked.query("method == @method and attack == @attack and n == @n")
    return {
        float(str(epsilon)): max(model["correct"].sum() / 6 for _, model in at_radius.groupby("train_key"))
        for epsilon, at_radius in rows.groupby("epsilon")
    }


@pytest.mark.parametrize(
    ("figure", "label", "attack"),
    [
        ("envelope_and_attack", "SmoothAdv empirical", ("smoothadv", "pgd", 50)),
        ("envelope_and_attack", "Cohen et al. empirical", ("gaussian", "pgd", 50)),
        ("m_test", "vanilla PGD", ("gaussian", "vanilla", 50)),
        ("m_test", "$m_{test}$ = 1", ("gaussian", "pgd", 50)),
        ("n_of_predict", "n = 20", ("gaussian", "pgd", 20)),
        ("n_of_predict", "n = 50", ("gaussian", "pgd", 50)),
        ("gradient_free", "Eq. (6), $m_{test}$ = 1", ("gaussian", "pgd", 50)),
        ("gradient_free", "Eq. (7), $m_{test}$ = 1", ("gaussian", "stein", 50)),
    ],
)
def test_curves_are_the_best_models_under_attack(
    drawn: Path, attacked: pd.DataFrame, figure: str, label: str, attack: tuple[str, str, int]
) -> None:
    expected = _best(attacked, *attack)
    assert list(expected) == [0.0, 0.5]
    assert _curve(drawn, figure, label) == pytest.approx(expected)
    assert (drawn / f"{figure}_digits.pdf").read_bytes().startswith(b"%PDF")


def test_without_the_aggregate_complete_attacks_are_drawn_and_others_left_out(
    results: Path, attacked: pd.DataFrame, tmp_path: Path
) -> None:
    store = Store(results)
    aggregate = store.records_path("tiny", "attack")
    lost = attacked.query("method == 'gaussian' and attack == 'stein' and n == 50 and epsilon == 0.5").iloc[0]
    shard = next(store.shards_dir(Place(lost["train_key"], "attack", lost["attack_key"])).glob("*.parquet"))
    away = {path: path.rename(tmp_path / path.name) for path in (aggregate, shard)}
    try:
        out = tmp_path / "out"
        assert run_command("paper", paper, [f"results={results}", "grid=tiny", f"output={out}"]) == 0
    finally:
        for path, moved in away.items():
            moved.rename(path)
    whole = _best(attacked, "gaussian", "stein", 50)
    assert _curve(out, "gradient_free", "Eq. (7), $m_{test}$ = 1") == pytest.approx({0.0: whole[0.0]})
    assert _curve(out, "n_of_predict", "n = 50") == pytest.approx(_best(attacked, "gaussian", "pgd", 50))


def test_attacks_that_are_not_aggregated_are_of_the_same_images_too(results: Path, tmp_path: Path) -> None:
    store = Store(Path(shutil.copytree(results, tmp_path / "results")))
    store.records_path("tiny", "attack").unlink()
    for path in next(store.root.glob("runs/*/attack/*")).glob("*.parquet"):
        told = {**records.read_metadata(path), "images": "f" * 64}
        records.write_records(path, records.read_records(path, ATTACK), told, ATTACK)
    with pytest.raises(RecordError, match=r"^different images: .*fingerprint ffffffffffff|with ffffffffffff"):
        paper(compose_config("paper", [f"results={store.root}", "grid=tiny"]))


def test_two_attacks_on_one_model_are_no_curve(results: Path) -> None:
    values = compose_config("paper", [f"results={results}", "grid=tiny"])
    curve = {"kind": "empirical", "label": "both n", "where": {"method": "gaussian", "estimator": "smoothed"}}
    values["figures"] = [{"name": "own", "title": "Own", "needs": "empirical", "curves": [curve]}]
    with pytest.raises(RecordError, match="curve 'both n': several predictions of one model"):
        paper(values)


def test_the_largest_of_names_is_refused(results: Path) -> None:
    values = compose_config("paper", [f"results={results}", "grid=tiny"])
    curve = {"kind": "empirical", "label": "x", "where": {"method": "largest"}}
    values["figures"] = [{"name": "own", "title": "Own", "curves": [curve]}]
    with pytest.raises(ConfigError, match="method is not a number"):
        paper(values)
