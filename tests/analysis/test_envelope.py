import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from analysis.envelope import envelope
from analysis.load import load_grid
from analysis.origin import DEFAULTS, variant_name
from configs.composition import compose_config
from configs.entry import run_command
from jobs.errors import RecordError
from jobs.files import records
from jobs.files.layouts import layout_of
from jobs.files.manifest import read_manifest, write_manifest
from jobs.files.store import Store
from jobs.files.summary import SUMMARY_KEY
from jobs.specs.indices import IndexRange
from jobs.specs.runs import Manifest, Run


@pytest.fixture
def store(tmp_path: Path, undisturbed_results: Path) -> Store:
    return Store(Path(shutil.copytree(undisturbed_results, tmp_path / "results")))


def _runs(store: Store) -> tuple[Run, ...]:
    return read_manifest(store.manifest_path("tiny")).runs


def _envelope(store: Store, *more: str) -> int:
    return run_command("envelope", envelope, ["grid=tiny", f"results={store.root}", *more])


def _lose_a_shard(store: Store) -> Run:
    run = _runs(store)[1]
    shard = store.finished_shards(run.place)[0]
    store.shard_path(run.place, shard).unlink()
    return run


def test_the_envelope_is_printed_and_written(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert _envelope(store) == 0
    text = capsys.readouterr().out
    assert "SmoothAdv" in text
    assert "Gaussian" in text
    assert max(len(line) for line in text.splitlines() if not line.startswith("wrote")) <= 80
    folder = store.envelope_dir("tiny")
    assert sorted(os.listdir(folder)) == [
        *(f"envelope.{suffix}" for suffix in ("csv", "md", "pdf", "png", "tex")),
        *("models.csv", "p_lower.csv", "p_lower.pdf", "p_lower.png", "question.json"),
    ]
    assert (folder / "envelope.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "p_lower.pdf").read_bytes().count(b"/FontFile2") == 1  # a TrueType font, embedded once
    assert (folder / "envelope.pdf").read_bytes().startswith(b"%PDF")
    assert r"\toprule" in (folder / "envelope.tex").read_text()
    assert "|" in (folder / "envelope.md").read_text()


def test_the_csv_holds_what_the_records_say(store: Store, undisturbed_records: pa.Table, tmp_path: Path) -> None:
    assert _envelope(store, "radii=[0,0.2,0.4]", f"output={tmp_path}/mine") == 0
    frame = pd.read_csv(tmp_path / "mine" / "envelope.csv")
    rows = undisturbed_records.to_pandas()
    for radius, accuracy, baseline in zip(frame["radius"], frame["accuracy"], frame["baseline_accuracy"], strict=True):
        certified = rows[rows["correct"] & (rows["radius"] >= radius)].groupby("train_key").size() / 21
        is_baseline = certified.index.str.contains("gaussian")
        assert accuracy == pytest.approx(certified[~is_baseline].max())
        assert baseline == pytest.approx(certified[is_baseline].max())


def test_every_question_has_its_own_folder_and_says_what_it_is(store: Store, tmp_path: Path) -> None:
    assert _envelope(store) == 0
    plain = store.envelope_dir("tiny")
    before = (plain / "envelope.csv").read_bytes()
    others = ("where={method: smoothadv}", "alpha=0.01", "seeds=best", "confidence=0.9", "rho=0.01", "step=0.5")
    for more in others:
        assert _envelope(store, more) == 0
    folders = sorted(path for path in plain.parent.iterdir() if path.name.startswith("envelope"))
    assert len(folders) == 1 + len(others)
    assert (plain / "envelope.csv").read_bytes() == before
    questions = [json.loads((folder / "question.json").read_text()) for folder in folders]
    assert {question["alpha"] for question in questions} == {0.001, 0.01}
    for question in questions:
        assert question["num_images"] == 21
        for name in ("dataset", "n", "selection", "where", "confidence", "mode", "code_version", "grid"):
            assert name in question, name
    assert _envelope(store, f"output={tmp_path}/mine", "alpha=0.01") == 0
    assert (tmp_path / "mine" / "envelope.csv").exists()


def test_the_plain_name_is_that_of_the_options_in_configs() -> None:
    for command in ("envelope", "report"):
        values = compose_config(command, [])
        assert {name: values[name] for name in DEFAULTS if name in values}.items() <= DEFAULTS.items()
    assert variant_name("report", compose_config("report", [])) == "report"
    assert variant_name("report", compose_config("report", ["rho=0.01"])) != "report"


def test_results_that_cannot_be_written_to_are_analysed_into_another_folder(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.envelope_dir("tiny").write_text("in the way")  # as root, permissions do not keep anyone out
    assert _envelope(store) == 2
    assert "output: cannot write to" in capsys.readouterr().err
    assert _envelope(store, f"output={tmp_path}/mine") == 0


def test_a_grid_that_is_not_there_is_named(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("envelope", envelope, ["grid=tony", f"results={store.root}"]) == 2
    assert "unknown grid 'tony' (did you mean 'tiny'?)" in capsys.readouterr().err


def test_two_grids_on_a_line_are_refused(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert _envelope(store, "grid=other") == 2
    assert "grid is given 2 times (grid=tiny, grid=other); give one" in capsys.readouterr().err


def test_models_have_one_definition_of_each_number(store: Store, undisturbed_records: pa.Table) -> None:
    assert _envelope(store) == 0
    folder, rows = store.envelope_dir("tiny"), undisturbed_records.to_pandas()
    models = pd.read_csv(folder / "models.csv")
    assert len(models) == 3
    by_noise = rows.apply(lambda row: row["counts0"][row["label"]] / sum(row["counts0"]), axis=1)
    expected = by_noise.groupby(rows["train_key"], sort=False).mean()
    assert sorted(models["accuracy_under_noise"]) == pytest.approx(sorted(expected))
    smoothed = (rows["prediction"] == rows["label"]).groupby(rows["train_key"]).mean()
    assert sorted(models["smoothed_accuracy"]) == pytest.approx(sorted(smoothed))
    told = json.loads(records.read_metadata(store.records_path("tiny"))["runs"])
    clean = [int(origin["clean_correct"]) / int(origin["clean_seen"]) for origin in told.values()]
    assert models["clean_accuracy"].tolist() == pytest.approx(clean)
    assert {origin["clean_seen"] for origin in told.values()} == {"21"}
    bins = pd.read_csv(folder / "p_lower.csv")
    assert bins["num_images"].sum() == len(rows)
    for sigma, group in bins.groupby("sigma_cert"):
        assert group["share"].sum() == pytest.approx(1)
        bounds = rows.loc[rows["sigma_cert"] == sigma, "p_lower"]
        assert group["num_images"].iloc[-1] == (bounds >= 0.96).sum()


def test_shards_that_do_not_say_the_clean_accuracy_leave_it_blank(store: Store) -> None:
    run = _runs(store)[0]
    for shard in store.finished_shards(run.place)[:1]:
        path = store.shard_path(run.place, shard)
        told = {name: text for name, text in records.read_metadata(path).items() if not name.startswith("clean")}
        records.write_records(path, records.read_records(path), told)
    store.records_path("tiny").unlink()
    assert _envelope(store) == 0
    models = pd.read_csv(store.envelope_dir("tiny") / "models.csv")
    assert models["clean_accuracy"].isna().tolist() == [True, False, False]


def test_records_and_shards_give_the_same_curves(store: Store) -> None:
    from_records = load_grid(store, "tiny").models
    store.records_path("tiny").unlink()
    from_shards = load_grid(store, "tiny").models
    for ours, theirs in zip(from_records, from_shards, strict=True):
        assert ours.label == theirs.label
        assert ours.curve.radii.tolist() == theirs.curve.radii.tolist()


@pytest.mark.parametrize("more", [(), ("alpha=0.01",), ("selection=split",)])
def test_joined_records_older_ones_and_shards_give_the_same_tables(
    store: Store, tmp_path: Path, more: tuple[str, ...]
) -> None:
    """Older ones say no summary of a run: it is made from all its rows."""

    def tables(name: str) -> dict[str, bytes]:
        assert _envelope(store, f"output={tmp_path / name}", *more) == 0
        return {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.csv")}

    path = store.records_path("tiny")
    joined, told = tables("joined"), records.read_metadata(path)
    assert sorted(joined) == ["envelope.csv", "models.csv", "p_lower.csv"]
    origins = json.loads(told["runs"])
    assert all(origin.pop(SUMMARY_KEY) for origin in origins.values())
    records.write_records(path, records.read_records(path), {**told, "runs": json.dumps(origins)})
    assert tables("older") == joined
    path.unlink()
    assert tables("shards") == joined


def test_an_incomplete_grid_is_refused(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    run = _lose_a_shard(store)
    store.checkpoint_path(_runs(store)[0].train.key).unlink()
    shutil.rmtree(store.run_dir(_runs(store)[0].train.key) / "certify")
    assert _envelope(store) == 1
    error = capsys.readouterr().err
    assert "grid tiny is incomplete: missing 2 of 3 certified models" in error
    assert f"{run.train.key}: 7 of 21 images not certified" in error
    assert f"{_runs(store)[0].train.key}: not trained" in error
    assert "allow_partial=true" in error
    assert not store.envelope_dir("tiny").exists()


def test_a_partial_grid_is_drawn_with_a_note(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    _lose_a_shard(store)
    assert _envelope(store, "allow_partial=true") == 0
    assert "PARTIAL: missing 1 of 3 certified models." in capsys.readouterr().out
    assert "PARTIAL" in (store.envelope_dir("tiny") / "envelope.md").read_text()


def test_nothing_complete_is_an_error_even_then(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(store.root / "runs")
    assert _envelope(store, "allow_partial=true") == 1
    assert "no certified model is complete yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("what", "different"),
    [("n", "with different n"), ("alpha", "with different alpha"), ("images", "on different images")],
)
def test_a_mixed_grid_is_refused(store: Store, what: str, different: str, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third = _runs(store)
    if what == "images":
        other = Run(train=third.train, task=third.task, indices=IndexRange(start=0, stop=7))
    else:
        change = {"n": 100} if what == "n" else {"alpha": 0.01}
        other = replace(third, task=replace(third.task, **change))
    write_manifest(store.manifest_path("tiny"), Manifest(grid="tiny", runs=(first, second, other)))
    assert _envelope(store) == 1
    error = capsys.readouterr().err
    assert f"models certified {different} cannot be compared" in error
    assert first.train.key in error
    assert third.train.key in error


@pytest.mark.parametrize("is_aggregated", [True, False])
def test_models_on_different_images_are_refused_with_both_fingerprints(
    store: Store, is_aggregated: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """The indices are the same, the contents are not: two trees of images with the same names."""
    run, path = _runs(store)[1], store.records_path("tiny")
    if is_aggregated:
        metadata = records.read_metadata(path)
        origins = json.loads(metadata["runs"])
        origins[run.keys]["images"] = "b" * 64
        records.write_records(path, records.read_records(path), {**metadata, "runs": json.dumps(origins)})
    else:
        path.unlink()
        for indices in store.finished_shards(run.place):
            shard = store.shard_path(run.place, indices)
            told = {**records.read_metadata(shard), "images": "b" * 64}
            records.write_records(shard, records.read_records(shard), told)
    assert _envelope(store) == 1
    error = capsys.readouterr().err
    assert "certified on different images cannot be compared" in error
    assert "(bbbbbbbbbbbb)" in error
    assert len(re.findall(r"\([0-9a-f]{12}\)", error)) == 2


def test_seeds_of_the_training_are_one_candidate(store: Store) -> None:
    first, second, third = _runs(store)
    other = replace(first.train, seed=first.train.seed + 1)
    twin = Run(train=other, task=replace(first.task, train_key=other.key), indices=first.indices)
    for indices in store.finished_shards(first.place):
        path = store.shard_path(twin.place, indices)
        path.parent.mkdir(parents=True, exist_ok=True)
        table = records.read_records(store.shard_path(first.place, indices))
        for name, value in (("train_key", twin.train.key), ("certify_key", twin.task.key)):
            table = table.set_column(
                table.schema.get_field_index(name), table.schema.field(name), [[value] * len(table)]
            )
        told = records.read_metadata(store.shard_path(first.place, indices))
        records.write_records(path, table, {**told, **layout_of(twin).specs})
    write_manifest(store.manifest_path("tiny"), Manifest(grid="tiny", runs=(first, twin, second, third)))
    models = load_grid(store, "tiny").models
    assert len({model.label for model in models}) == 4
    assert len({model.recipe_label for model in models}) == 3
    assert models[0].label == f"{models[0].recipe_label} seed {first.train.seed}"
    assert models[1].parameters.recipe == models[0].parameters.recipe


def test_a_damaged_records_file_is_named(store: Store) -> None:
    path = store.records_path("tiny")
    data = path.read_bytes()
    path.write_bytes(data[:200] + bytes(100) + data[300:])
    with pytest.raises(RecordError, match=r"records\.parquet: cannot be read"):
        load_grid(store, "tiny")


def test_records_that_lack_a_row_are_named(store: Store) -> None:
    path = store.records_path("tiny")
    metadata = records.read_metadata(path)
    records.write_records(path, records.read_records(path).slice(1), metadata)
    with pytest.raises(RecordError, match=r"do not match its image indices; remove records\.parquet and launch"):
        load_grid(store, "tiny")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("step=1e-9", "a table holds at most 1000 radii; take a larger step"),
        ("step=1e-320", "a table holds at most 1000 radii; take a larger step"),
        ("radii=[]", "error: radii: write at least 1 value, got []"),
        ("radii=[0,-1]", "radii[1]: input should be greater than or equal to 0, got -1"),
        ("alpha=1e-31", "alpha: 1e-31 is too small: no bound is sound below 1e-30"),
        ("confidence=1.0", "confidence: input should be less than 1"),
        ("colour=red", "unknown key 'colour'"),
        (
            "where={sigma_cert: 0.33}",
            "no certified model of grid tiny matches {'sigma_cert': 0.33}; values of sigma_cert: 0.25",
        ),
    ],
)
def test_bad_input_exits_2(store: Store, override: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _envelope(store, override) == 2
    assert message in capsys.readouterr().err
    assert not store.envelope_dir("tiny").exists()
