import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from analysis.envelope import envelope
from analysis.export_tsv import by_log_path, export_tsv
from analysis.import_logs import import_logs
from analysis.load import load_grid
from analysis.paired import paired
from analysis.paper.__main__ import paper
from analysis.selection import matches
from configs.entry import run_command
from jobs.errors import ConfigError, RecordError
from jobs.files import records
from jobs.files.imported import IMPORTED, PREDICTIONS, read_listing
from jobs.files.manifest import open_grid
from jobs.files.store import Store
from tests.analysis.models import cifar_path, cohen_path, parameters, voted, write_log, write_predictions, write_text

GOOD = [(0, 3, 3, "0.2500"), (20, 7, 1, "0.1000"), (40, 4, -1, "0.0"), (60, 2, 2, "0.5000")]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Five sound models of four images each, and predictions."""
    root = tmp_path / "logs"
    write_log(root, cohen_path("0.25"), GOOD)
    write_log(root, cohen_path("0.25", "0.50"), GOOD)
    write_log(root, cifar_path("PGD_2steps", 64, "0.25"), [*GOOD[:2], (40, 4, 4, "0.3000"), GOOD[3]])
    write_log(root, cifar_path("PGD_2steps", 64, "0.25", 4), [*GOOD[:1], (20, 7, 7, "0.9000"), *GOOD[2:]])
    write_log(root, "data/certify/cifar10/odd/" + cifar_path("DDN_4steps", 255, "0.25").partition("cifar10/")[2], GOOD)
    for epsilon in ("0.000", "0.125"):
        path = f"data/predict/predict_cifar_cohen/N100/PGD_{epsilon}/num_1/predictions"
        write_predictions(root, path, [(0, 3, 3), (20, 7, 7 if epsilon == "0.000" else -1)])
    return root


def _import(source: Path, *more: str) -> tuple[int, Store]:
    store = Store(source.parent / "results")
    return run_command(
        "import_logs", import_logs, [f"source={source}", "grid=old", f"results={store.root}", *more]
    ), store


def _report(store: Store) -> list[dict[str, str]]:
    with store.import_report_path("old").open() as file:
        return list(csv.DictReader(file))


def test_a_sound_tree_becomes_records(source: Path) -> None:
    code, store = _import(source, "strict=true")
    assert code == 0
    assert _report(store) == []
    question = json.loads(store.import_report_path("old").with_suffix(".json").read_text())
    assert (question["source"], question["mapping"], question["strict"]) == (str(source), None, True)
    assert (question["num_files"], question["num_models"]) == (7, 5)
    table = records.read_records(store.records_path("old"), IMPORTED)
    assert len(table) == 20
    row = next(row for row in table.to_pylist() if row["m_train"] == 4 and row["index"] == 20)
    assert (row["method"], row["attack"], row["epsilon"], row["num_steps"]) == ("smoothadv", "pgd", 0.25, 2)
    assert (row["radius"], row["correct"], row["prediction"], row["elapsed_s"]) == (0.9, True, 7, 1.5)
    for unknown in ("n0", "n", "n_used", "counts0", "counts", "count_top", "alpha", "p_lower", "seed", "stop", "noise"):
        assert row[unknown] is None
        assert unknown in row["source"]
    assert row["source"].startswith(cifar_path("PGD_2steps", 64, "0.25", 4))
    assert {row["variant"] for row in table.to_pylist()} == {"", "odd"}


def test_predictions_become_records_too(source: Path) -> None:
    _, store = _import(source)
    rows = records.read_records(store.predictions_path("old"), PREDICTIONS).to_pylist()
    assert [(row["attack_epsilon"], row["index"], row["correct"]) for row in rows] == [
        (0.0, 0, True),
        (0.0, 20, True),
        (0.125, 0, True),
        (0.125, 20, False),
    ]
    assert {(row["n"], row["m_test"], row["estimator"], row["alpha"]) for row in rows} == {(100, 1, "smoothed", None)}


def test_unsound_files_are_all_named_and_the_others_imported(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_text(source, cifar_path("PGD_4steps", 64, "0.25"), "idx\tlabel\tpredict\tradius\tcorrect\ttime\n")
    write_log(source, cifar_path("PGD_4steps", 127, "0.25"), GOOD[:2])
    write_text(source, cifar_path("PGD_4steps", 255, "0.25"), "what is this?\n")
    write_log(source, cifar_path("PGD_4steps", 512, "0.25"), [(0, 9, 9, "0.1")])
    write_log(source, cifar_path("PGD_6steps", 64, "0.25"), [*GOOD[:3], (60, 2, 2, "0.9790")])
    write_log(source, cifar_path("PGD_6steps", 127, "0.25"), [*GOOD[:3], (60, 2, 2, "0.9529")])
    write_text(source, "data/stdout.txt", "hello\n")
    code, store = _import(source)
    assert code == 0
    found = {row["path"].partition("eps_")[2].partition("/")[0] or row["path"]: row for row in _report(store)}
    kinds = [row["reason"].partition(":")[0] for row in _report(store)]
    assert sorted(kinds) == [
        *("empty", "malformed", "not a log", "other alpha or n"),
        *("other images", "rounded up in print", "short"),
    ]
    assert found["data/stdout.txt"]["verdict"] == "ignored"
    short = next(row for row in _report(store) if row["reason"].startswith("short"))
    assert (short["rows"], short["verdict"]) == ("2", "kept")
    assert "2 of the 4 images" in short["reason"]
    other = next(row for row in _report(store) if row["reason"].startswith("other images"))
    assert "image 0 has label 9, but 3 in" in other["reason"]
    assert other["verdict"] == "kept"
    with pytest.raises(RecordError, match="certified on different images cannot be compared"):
        load_grid(store, "old", allow_partial=True)
    assert len(load_grid(store, "old", where={"images": "list 1"}, allow_partial=True).models) == 7
    assert len(load_grid(store, "old", where={"images": "list 2"}, allow_partial=True).models) == 1
    assert "1 empty" in capsys.readouterr().out
    assert _import(source, "strict=true")[0] == 1


def test_of_the_same_model_twice_the_first_counts_and_is_named(source: Path) -> None:
    shutil.copytree(source / "data", source / "data" / "data")
    changed = next((source / "data" / "data").rglob("sigma_0.25"))
    changed.write_text(changed.read_text().replace("0.5000", "0.6000"))
    code, store = _import(source, "strict=true")
    assert code == 1
    kinds = [row["reason"].partition(":")[0] for row in _report(store)]
    assert sorted(kinds) == ["contradictory", *["duplicate"] * 4]
    assert all("which comes first and is used" in row["reason"] for row in _report(store))
    assert len(load_grid(store, "old", allow_partial=True).models) == 5


def test_images_in_another_order_are_another_list(source: Path) -> None:
    """Most labels differ: it is the order. One differs: one of the two logs is wrong."""
    log = cifar_path("DDN_2steps", 64, "0.25")
    write_log(source, log, [(0, 7, 7, "0.1"), (20, 2, 2, "0.1"), (40, 3, 3, "0.1"), (60, 4, 4, "0.1")])
    write_log(source, cifar_path("DDN_6steps", 64, "0.25"), [*GOOD[:3], (60, 5, 2, "0.5")])
    code, store = _import(source)
    assert code == 0
    reasons = {row["path"]: row["reason"] for row in _report(store)}
    assert reasons[log].startswith("other images: image 0 has label 7, but 3 in data/")
    assert [reason.partition(":")[0] for reason in reasons.values()] == ["other images", "contradictory"]
    assert len(load_grid(store, "old", where={"images": "list 2"}).models) == 1
    with pytest.raises(
        RecordError, match=r'different images cannot be compared.*\(list 2\).*\(list 1\).* "where={images: '
    ):
        load_grid(store, "old")


def test_a_log_is_taken_by_its_content_and_none_is_left_out_unseen(source: Path, tmp_path: Path) -> None:
    rows = [(index, label, guess, radius) for index, label, guess, radius in GOOD]
    write_log(source, "mine/run_7/anything.dat", rows)
    write_log(source, "theirs/cifar10/smoothmix/noise_0.25.tsv", rows)
    write_log(tmp_path / "elsewhere", "resnet110/test/sigma_0.25_rank0", rows[:2])
    write_log(tmp_path / "elsewhere", "resnet110/test/sigma_0.25_rank1", rows[2:])
    (source / "linked").mkdir()
    (source / "linked" / "cifar10").symlink_to(tmp_path / "elsewhere")
    (source / "linked" / "circle").symlink_to(source)
    (source / "dangling").symlink_to(tmp_path / "nowhere")
    code, store = _import(source, "strict=true")
    assert code == 1
    reasons = {row["path"]: row["reason"] for row in _report(store)}
    assert reasons["mine/run_7/anything.dat"] == "path: does not say dataset, sigma_cert; set it with mapping=FILE"
    assert reasons["theirs/cifar10/smoothmix/noise_0.25.tsv"].startswith("assumed: sigma_cert=0.25 (from noise_0.25), ")
    linked = reasons["linked/cifar10/resnet110/test/sigma_0.25_rank0"]
    assert linked == "form: reached by a symbolic link; joined from 2 parts"
    assert reasons["dangling"].startswith("unreadable: ")
    (source / "dangling").unlink()
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(
        '"mine/run_{seed}/*": {dataset: cifar10, split: test, sigma_cert: 0.25, method: mine, n: 1000, alpha: 0.001}\n'
        '"theirs/**/noise_{sigma_cert}.tsv": {split: test}\n'
    )
    code, store = _import(source, "strict=true", f"mapping={mapping}")
    assert code == 0
    models = {model["method"]: model for model in read_listing(store, "old") if "method" in model}
    assert (models["mine"]["seed"], models["mine"]["n"]) == (7, 1000)
    assert models["smoothmix"]["train_key"].startswith("cifar10-smoothmix-s0.25-")
    mapping.write_text('"mien/*": {split: test}')
    assert _import(source, f"mapping={mapping}")[0] == 2


def test_the_envelope_opens_an_imported_grid(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, store = _import(source)
    assert run_command("envelope", envelope, ["grid=old", f"results={store.root}", "radii=[0.25,0.3,0.9]"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "n and alpha are not recorded" in text
    assert "which round them to nearest" in text
    models = {model.label: model for model in load_grid(store, "old").models}
    assert set(models) == {
        *("gaussian-s0.25", "gaussian-s0.25 at 0.50"),
        *("pgd-s0.25-e0.25-m1-t2", "pgd-s0.25-e0.25-m4-t2", "ddn-s0.25-e1.00-m1-t4"),
    }
    assert models["pgd-s0.25-e0.25-m1-t2"].curve([0.0, 0.3, 0.5]).tolist() == [0.75, 0.5, 0.25]


def test_conditions_choose_models(source: Path) -> None:
    _, store = _import(source)
    chosen = load_grid(store, "old", where={"method": "smoothadv", "variant": "", "epsilon": [0.25]})
    assert len(chosen.models) == 2
    assert len(load_grid(store, "old", where={"method": "gaussian", "sigma_cert": "as_trained"}).models) == 1
    with pytest.raises(
        ConfigError,
        match=r"no certified model of grid old matches .*'vanilla'}; values of method: gaussian, smoothadv",
    ):
        load_grid(store, "old", where={"method": "vanilla"})
    with pytest.raises(ConfigError, match=r"unknown parameter 'metod'.*did you mean 'method'"):
        load_grid(store, "old", where={"metod": "vanilla"})


def test_only_epsilon_is_compared_as_it_is_printed(tmp_path: Path) -> None:
    write_log(tmp_path / "logs", cohen_path("0.121"), GOOD)
    write_log(tmp_path / "logs", cifar_path("PGD_2steps", 255, "0.121"), GOOD)
    code, store = _import(tmp_path / "logs")
    assert code == 0
    assert len(load_grid(store, "old", where={"sigma_cert": [0.12, 0.121]}).models) == 2
    assert len(load_grid(store, "old", where={"epsilon": 1}).models) == 1
    with pytest.raises(ConfigError, match=r"no certified model .*; values of sigma_train: 0\.121"):
        load_grid(store, "old", where={"sigma_train": 0.12})
    assert matches(parameters("one", alpha=0.001), {"alpha": 0.001})
    assert not matches(parameters("one", alpha=0.001), {"alpha": 0.004})


def test_a_log_that_records_cannot_hold_is_left_out_alone(source: Path) -> None:
    write_log(source, cifar_path("PGD_4steps", 64, "0.25"), [*GOOD, (2**31, 3, 3, "0.1")])
    write_log(source, cifar_path("PGD_4steps", 127, "0.25"), [*GOOD, (80, 2**31, 0, "0.1")])
    write_log(source, cifar_path("PGD_4steps", 255, "0.00"), GOOD)
    write_log(source, cifar_path("PGD_4steps", 512, "0.25", 2**31), GOOD)
    code, store = _import(source)
    assert code == 0
    assert sorted(row["reason"].partition(":")[0] for row in _report(store)) == [*["malformed"] * 2, *["path"] * 2]
    assert len(load_grid(store, "old").models) == 5


@pytest.mark.parametrize("command", ["export_tsv", "paper", "import_logs"])
def test_a_file_in_the_place_of_the_folder_is_bad_configuration(
    source: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, store = _import(source)
    blocker = source.parent / "file"
    blocker.write_text("mine")
    arguments = {
        "export_tsv": ["grid=old", f"results={store.root}", f"output={blocker}"],
        "paper": ["grid=old", f"results={store.root}", f"output={blocker}/below"],
        "import_logs": ["grid=old", f"source={source}", f"results={blocker}"],
    }[command]
    act = {"export_tsv": export_tsv, "paper": paper, "import_logs": import_logs}[command]
    capsys.readouterr()
    assert (code, run_command(command, act, arguments)) == (0, 2)
    option = "results" if command == "import_logs" else "output"
    assert f"{option}: cannot write to {blocker}" in capsys.readouterr().err
    assert blocker.read_text() == "mine"


def test_short_logs_make_a_grid_incomplete(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(source, cifar_path("DDN_2steps", 64, "0.25"), GOOD[:3])
    _, store = _import(source)
    assert run_command("envelope", envelope, ["grid=old", f"results={store.root}"]) == 1
    error = capsys.readouterr().err
    assert "missing 1 of 6 certified models" in error
    assert "ddn-s0.25-e0.25-m1-t2: 3 of 4 images" in error
    assert len(load_grid(store, "old", allow_partial=True).missing) == 1


def test_different_images_are_never_compared(source: Path) -> None:
    other = [(index + 1, label, guess, radius) for index, label, guess, radius in GOOD]
    write_log(source, cifar_path("DDN_2steps", 64, "0.25"), other)
    _, store = _import(source)
    with pytest.raises(RecordError, match="models certified on different images cannot be compared") as raised:
        load_grid(store, "old", allow_partial=True)
    assert "4 images, 0 to 60 by 20" in str(raised.value)
    assert "4 images, 1 to 61 by 20" in str(raised.value)


def test_data_sets_are_told_apart_by_a_condition(source: Path) -> None:
    write_log(source, "data/certify/imagenet/DDN_2steps/eps_64/resnet50/noise_0.25/test/sigma_0.25", GOOD)
    _, store = _import(source)
    with pytest.raises(RecordError, match="where="):
        load_grid(store, "old")
    assert len(load_grid(store, "old", where={"dataset": "imagenet"}).models) == 1


@pytest.mark.parametrize("override", ["source=null", "source=/nowhere", "grid=", "grid=a/b"])
def test_bad_configuration_writes_nothing(source: Path, override: str) -> None:
    store = Store(source.parent / "results")
    given = {"source": f"source={source}", "grid": "grid=old", override.partition("=")[0]: override}
    arguments = [*given.values(), f"results={store.root}"]
    assert run_command("import_logs", import_logs, arguments) == 2
    assert not store.root.exists()


def test_nothing_sound_is_a_failure(tmp_path: Path) -> None:
    root = tmp_path / "logs"
    write_text(root, "readme.txt", "no logs here")
    code, store = _import(root)
    assert code == 1
    assert not store.root.exists()


def test_a_launched_grid_is_not_overwritten(source: Path) -> None:
    store = Store(source.parent / "results")
    write_text(store.root, "grids/old/grid.json", "{}")
    assert _import(source)[0] == 2


def test_an_imported_grid_cannot_be_launched_or_followed(source: Path) -> None:
    _, store = _import(source)
    with pytest.raises(ConfigError, match="was imported from logs"):
        open_grid(store, "old")


def test_a_file_of_another_kind_or_a_newer_schema_is_named(source: Path) -> None:
    _, store = _import(source)
    path = store.records_path("old")
    with pytest.raises(RecordError, match="holds records of kind 'imported', expected 'certification'"):
        records.read_records(path)
    table = pq.read_table(path)
    newer = {**table.schema.metadata, b"smoothadv.schema_version": b"99"}
    pq.write_table(table.replace_schema_metadata(newer), path)
    with pytest.raises(RecordError, match="schema version 99, but this version of the package reads"):
        load_grid(store, "old")
    pq.write_table(table.drop_columns(["radius"]), path)
    with pytest.raises(RecordError, match=r"records\.parquet: column 'radius' is missing"):
        load_grid(store, "old")


def test_records_that_are_not_those_listed_are_named(source: Path) -> None:
    _, store = _import(source)
    path = store.records_path("old")
    records.write_records(path, records.read_records(path, IMPORTED).slice(1), {}, IMPORTED)
    with pytest.raises(RecordError, match=r"do not match import\.json; import the logs again"):
        load_grid(store, "old")
    records.write_records(path, IMPORTED.schema.empty_table(), {}, IMPORTED)
    with pytest.raises(RecordError, match=r"do not match import\.json"):  # no records at all
        load_grid(store, "old")
    store.import_path("old").write_text("{}")
    with pytest.raises(RecordError, match="not a list of imported models"):
        load_grid(store, "old")


def test_export_and_import_give_the_same_curves(undisturbed_results: Path, tmp_path: Path) -> None:
    store = Store(Path(shutil.copytree(undisturbed_results, tmp_path / "results")))
    assert run_command("export_tsv", export_tsv, ["grid=tiny", f"results={store.root}", f"output={tmp_path}/logs"]) == 0
    files = sorted(path for path in (tmp_path / "logs").rglob("*") if path.is_file())
    assert len(files) == 3
    lines = files[0].read_text().splitlines()
    assert lines[0] == "idx\tlabel\tpredict\tradius\tcorrect\ttime"
    code, store = _import(tmp_path / "logs", "strict=true")
    assert code == 0
    back = {model.parameters.variant: model for model in load_grid(store, "old").models}
    for ours in load_grid(store, "tiny").models:
        theirs = back[ours.parameters.train_key]
        assert theirs.column("prediction").tolist() == ours.column("prediction").tolist()
        lost = ours.column("radius") - theirs.column("radius")
        assert (lost >= 0).all()  # never rounded up
        assert (lost < 1e-4).all()


def test_models_whose_sigmas_agree_to_two_decimals_come_back_as_they_were(tmp_path: Path) -> None:
    radii = {"0.12": "0.0100", "0.121": "0.0200", "0.124": "0.0300", "0.00001": "0.0000"}
    for sigma, radius in radii.items():
        write_log(tmp_path / "published", cohen_path("0.121", sigma), [(0, 3, 3, radius)])
    store = Store(tmp_path / "results")
    for grid, root in (("first", tmp_path / "published"), ("second", tmp_path / "exported")):
        assert run_command("import_logs", import_logs, [f"source={root}", f"grid={grid}", f"results={store.root}"]) == 0
        models = load_grid(store, grid).models
        assert {model.parameters.sigma_train for model in models} == {0.121}
        found = {model.parameters.sigma_cert: float(model.column("radius")[0]) for model in models}
        assert found == {float(sigma): float(radius) for sigma, radius in radii.items()}
        arguments = [f"grid={grid}", f"results={store.root}", f"output={tmp_path}/exported"]
        assert run_command("export_tsv", export_tsv, arguments) == 0


def test_labels_tell_sigmas_apart_that_agree_to_two_decimals(tmp_path: Path) -> None:
    for sigma in ("0.121", "0.12", "0.124"):
        write_log(tmp_path / "logs", cohen_path("0.121", sigma), GOOD)
    _, store = _import(tmp_path / "logs")
    labels = {model.label for model in load_grid(store, "old").models}
    assert labels == {"gaussian-s0.12", "gaussian-s0.12 at 0.12", "gaussian-s0.12 at 0.124"}


def test_no_log_is_written_over_another() -> None:
    twin = replace(voted("two", [800]), parameters=parameters("one"))
    with pytest.raises(RecordError, match="one and two would have the same log"):
        by_log_path([voted("one", [900]), twin])


def test_two_models_are_compared_in_pairs(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, store = _import(source)
    arguments = ["grid=old", f"results={store.root}", "radius=0.25"]
    two = ["model_a=pgd-s0.25-e0.25-m4-t2", "model_b=gaussian-s0.25"]
    assert run_command("paired", paired, [*arguments, *two]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "+25.00 percentage points on 4 images McNemar's exact test: p = 1" in text
    assert "selected on these same images" not in text
    by_grid = ["where={method: smoothadv}", "where_b={method: gaussian}"]
    assert run_command("paired", paired, [*arguments, *by_grid]) == 0
    assert "A and B were selected on these same images" in " ".join(capsys.readouterr().out.split())
    assert run_command("paired", paired, [*arguments, "model_a=pgd", "model_b=gaussian-s0.25"]) == 2
    assert "model_a (grid old): unknown certified model 'pgd'" in capsys.readouterr().err


def test_the_order_of_rows_is_that_of_indices(source: Path) -> None:
    _, store = _import(source)
    for model in load_grid(store, "old").models:
        assert np.array_equal(model.indices, [0, 20, 40, 60])
