import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from jobs import certify
from jobs.datasets import dataset_info, load_images
from jobs.errors import CheckpointError, ConfigError
from jobs.files import records
from jobs.files.failures import classify
from jobs.files.layouts import CERTIFICATION, RecordKind, layout_of
from jobs.files.store import Store
from jobs.networks import checkpoint
from jobs.networks.classifier import build_classifier
from jobs.networks.inference import for_inference
from jobs.specs.indices import IndexRange, partition
from jobs.specs.runs import Run
from smoothing.bounds import clopper_pearson_lower
from smoothing.counts import class_counts
from smoothing.noise import NoiseStream
from tests.grids import as_range
from tests.jobs.test_train import Killed
from tests.jobs.units import GAUSSIAN_RUN, PGD_RUN, RESOURCES, certify_here

RUN = PGD_RUN
KEYS = RUN.place
ALL = as_range(RUN.indices)


@pytest.fixture
def store(tmp_path: Path, undisturbed_results: Path) -> Store:
    """A store with trained classifiers and no certification."""
    store = Store(tmp_path)
    for run in (RUN, GAUSSIAN_RUN):
        target = store.checkpoint_path(run.train.key)
        target.parent.mkdir(parents=True)
        shutil.copy(Store(undisturbed_results).checkpoint_path(run.train.key), target)
    return store


def _records(store: Store) -> pa.Table:
    shards = [records.read_records(store.shard_path(KEYS, shard)) for shard in store.finished_shards(KEYS)]
    return pa.concat_tables(shards).sort_by("index").drop_columns(["elapsed_s"])


@pytest.fixture(scope="module")
def expected(undisturbed_records: pa.Table) -> pa.Table:
    mask = pa.compute.equal(undisturbed_records["train_key"], RUN.train.key)
    return undisturbed_records.filter(mask)


def _dying_after(num_images: int) -> Any:
    """``certify_images``, but asking for the image after the first ``num_images`` is the process's last act."""
    certify_images = certify.certify_images

    def dying(*args: Any, **kwargs: Any) -> Any:
        for number, done in enumerate(certify_images(*args, **kwargs)):
            if number == num_images:
                raise Killed
            yield done

    return dying


@pytest.mark.parametrize("num_shards", [1, 3, 7])
@pytest.mark.parametrize("batch_size", [1, 64, 1000, 7777])
def test_counts_depend_neither_on_shards_nor_batch_size_nor_order(
    store: Store, expected: pa.Table, num_shards: int, batch_size: int
) -> None:
    shards = partition(ALL, -(-len(ALL) // num_shards))
    random.Random(num_shards).shuffle(shards)
    for shard in shards:
        certify_here(store, RUN, shard, replace(RESOURCES, batch_size=batch_size))
    assert _records(store).equals(expected)


def test_strided_shards_give_the_same_records(store: Store, expected: pa.Table) -> None:
    for start in (2, 0, 1):
        certify_here(store, RUN, IndexRange(start=start, stop=ALL.stop, step=3))
    assert _records(store).equals(expected)


@pytest.mark.parametrize("done", [0, 1, 10, 20])
def test_a_shard_killed_anywhere_goes_on_image_by_image(
    store: Store, expected: pa.Table, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(certify, "certify_images", _dying_after(done))
        with pytest.raises(Killed):
            certify_here(store, RUN, ALL)
    assert store.finished_shards(KEYS) == []
    certified: list[int] = []
    certify_images = certify.certify_images

    def counting(*args: Any, **kwargs: Any) -> Any:
        for image, certificate in certify_images(*args, **kwargs):
            certified.append(image.index)
            yield image, certificate

    monkeypatch.setattr(certify, "certify_images", counting)
    certify_here(store, RUN, ALL)
    assert certified == list(ALL)[done:]  # nothing that was saved is done twice
    assert _records(store).equals(expected)
    assert store.partial_shards(KEYS) == []


def test_saved_images_serve_another_shard_layout_too(
    store: Store, expected: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(certify, "certify_images", _dying_after(15))
        with pytest.raises(Killed):
            certify_here(store, RUN, ALL)
    with monkeypatch.context() as patch:
        patch.setattr(certify, "certify_images", _dying_after(0))
        certify_here(store, RUN, IndexRange(start=0, stop=10))  # draws nothing
    certify_here(store, RUN, IndexRange(start=10, stop=ALL.stop))
    assert _records(store).equals(expected)
    assert store.partial_shards(KEYS) == []


def test_what_others_publish_meanwhile_is_left_to_them(
    store: Store, expected: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second launch that cut shards differently: the last shard begins and ends while the first is running."""
    certify_images = certify.certify_images
    calls: list[list[int]] = []

    def overtaken(*args: Any, **kwargs: Any) -> Any:
        calls.append([])
        for number, done in enumerate(certify_images(*args, **kwargs)):
            calls[0].append(done[0].index)
            if number == 3 and len(calls) == 1:
                certify_here(store, RUN, IndexRange(start=7, stop=ALL.stop))
            yield done

    monkeypatch.setattr(certify, "certify_images", overtaken)
    certify_here(store, RUN, IndexRange(start=0, stop=11))
    certify_here(store, RUN, IndexRange(start=0, stop=ALL.stop))  # finds nothing left to do
    assert [*map(str, store.finished_shards(KEYS))] == ["0-7-1", f"7-{ALL.stop}-1"]
    assert len(calls) == 2
    assert _records(store).equals(expected)
    assert store.partial_shards(KEYS) == []


def test_a_damaged_partial_file_is_set_aside(store: Store, expected: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(certify, "certify_images", _dying_after(5))
        with pytest.raises(Killed):
            certify_here(store, RUN, ALL)
    partial = store.partial_path(KEYS, ALL)
    partial.write_bytes(partial.read_bytes()[:-20])
    certify_here(store, RUN, ALL)
    assert _records(store).equals(expected)
    assert partial.with_name(f"{partial.name}.rejected-1").exists()


def test_a_finished_shard_is_not_touched(store: Store) -> None:
    certify_here(store, RUN, ALL)
    path = store.shard_path(KEYS, ALL)
    before = path.stat()
    certify_here(store, RUN, ALL)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_missing_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint; launch again to train it"):
        certify_here(Store(tmp_path), RUN, ALL)


def test_votes_are_those_of_the_seed_in_the_spec(tmp_path: Path) -> None:
    store = Store(tmp_path)
    torch.manual_seed(0)
    classifier = build_classifier(RUN.train.architecture, dataset_info(RUN.train.dataset)).eval()
    checkpoint.save_classifier(store.checkpoint_path(RUN.train.key), classifier, RUN.train)
    image_CHW = torch.from_numpy(load_images("digits", "test").image(4))
    found = []
    for seed in (0, 1):
        task = replace(RUN.certify, seed=seed, sigma_cert=1.0)
        run = replace(RUN, task=task)
        certify_here(store, run, IndexRange(start=4, stop=5))
        (shard,) = store.finished_shards(run.place)
        (row,) = records.read_records(store.shard_path(run.place, shard)).to_pylist()
        expected = class_counts(
            for_inference(classifier, "float32", torch.device("cpu")),
            image_CHW,
            sigma=1.0,
            num_samples=task.n,
            num_classes=10,
            stream=NoiseStream(seed=seed, index=4, stage="estimation"),
            batch_size=1000,
        )
        assert row["counts"] == expected.tolist()
        found.append(row["counts"])
    assert found[0] != found[1]


def test_logits_that_are_not_finite_end_the_shard_and_leave_records_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    classifier = build_classifier(RUN.train.architecture, dataset_info(RUN.train.dataset))
    path = store.checkpoint_path(RUN.train.key)
    path.parent.mkdir(parents=True)
    checkpoint.save_classifier(path, classifier, RUN.train)
    certify_here(store, RUN, IndexRange(start=0, stop=3))
    before = _records(store)
    list(classifier.parameters())[-1].data[0] = float("nan")
    path.unlink()
    checkpoint.save_classifier(path, classifier, RUN.train)
    with pytest.raises(CheckpointError, match=r"logits are not finite for 100 of 100 noisy images") as caught:
        certify_here(store, RUN, IndexRange(start=3, stop=6), replace(RESOURCES, batch_size=100))
    assert "(among the images 3)" in str(caught.value)
    assert classify(caught.value) == "data"
    assert _records(store).equals(before)
    assert store.partial_shards(RUN.place) == []
    assert path.exists()  # it is what its training gave, and nothing that a new one would mend


def test_a_truncated_checkpoint_is_set_aside(store: Store) -> None:
    path = store.checkpoint_path(RUN.train.key)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"moved to checkpoint.pt.rejected-1: launch again"):
        certify_here(store, RUN, ALL)
    assert not store.is_trained(RUN.train.key)


def test_a_checkpoint_of_another_spec_is_set_aside(store: Store) -> None:
    shutil.copy(store.checkpoint_path(GAUSSIAN_RUN.train.key), store.checkpoint_path(RUN.train.key))
    with pytest.raises(CheckpointError, match="another spec"):
        certify_here(store, RUN, ALL)
    assert not store.is_trained(RUN.train.key)


def test_shards_say_where_they_come_from(store: Store) -> None:
    certify_here(store, RUN, ALL)
    metadata = records.check_metadata(store.shard_path(KEYS, ALL), layout_of(RUN).specs)
    assert len(metadata["checkpoint_sha256"]) == 64
    assert metadata["device"] == "cpu"
    assert metadata["source"] == "certify"
    assert '"torch"' in metadata["packages"]
    assert metadata["git_commit"]


def test_a_partial_file_that_vanishes_while_being_read_is_no_error(
    store: Store, expected: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(certify, "certify_images", _dying_after(5))
        with pytest.raises(Killed):
            certify_here(store, RUN, ALL)
    read = records.read_records

    def vanishing(path: Path, kind: RecordKind = CERTIFICATION) -> pa.Table:
        if ".partial." in path.name and path.exists() and not path.name.startswith("."):
            path.unlink()
        return read(path, kind)

    monkeypatch.setattr(records, "read_records", vanishing)
    certify_here(store, RUN, ALL)
    assert _records(store).equals(expected)


ADAPTIVE = replace(
    RUN.certify, n=4000, mode="adaptive", stop_rule="grid", radius_step=0.25, stop_wrong=True, curtail=True
)
ADAPTIVE_RUN = replace(RUN, task=ADAPTIVE)
EXACT_RUN = replace(RUN, task=replace(RUN.certify, noise="exact_grid"))


@pytest.mark.parametrize("run", [ADAPTIVE_RUN, EXACT_RUN], ids=["adaptive", "exact_grid"])
@pytest.mark.parametrize("batch_size", [1, 700, 5000])
def test_what_an_image_gets_does_not_depend_on_its_company(
    store: Store, tmp_path: Path, run: Run, batch_size: int
) -> None:
    """In full batches images of all stages stand side by side, and end in another order than they began."""
    by_itself = Store(Path(shutil.copytree(tmp_path, tmp_path / "by-itself")))
    certify_here(store, run, ALL, replace(RESOURCES, batch_size=batch_size))
    together = records.read_records(store.shard_path(run.place, ALL))
    for index in (0, 7, 20):
        alone = IndexRange(start=index, stop=index + 1)
        certify_here(by_itself, run, alone, replace(RESOURCES, batch_size=100))
        row = records.read_records(by_itself.shard_path(run.place, alone))
        expected = together.filter(pa.compute.equal(together["index"], index))
        assert row.drop_columns(["elapsed_s"]).equals(expected.drop_columns(["elapsed_s"]))


def test_adaptive_records_say_what_was_drawn_and_why_it_ended(store: Store) -> None:
    certify_here(store, ADAPTIVE_RUN, ALL)
    rows = records.read_records(store.shard_path(ADAPTIVE_RUN.place, ALL)).to_pylist()
    assert {row["stop"] for row in rows} >= {"decided", "wrong_class"}
    for row in rows:
        assert row["n"] == 4000
        assert row["n_used"] == sum(row["counts"])
        assert (row["n_used"] == 0) == (row["stop"] == "wrong_class")
        assert (row["n_used"] == 4000) == (row["stop"] == "full")
        assert row["stop"] != "wrong_class" or not row["correct"]


def test_exact_noise_takes_its_total_variation_off_the_bound(store: Store) -> None:
    certify_here(store, EXACT_RUN, ALL)
    rows = records.read_records(store.shard_path(EXACT_RUN.place, ALL)).to_pylist()
    assert {row["noise"] for row in rows} == {"exact_grid"}
    for row in rows:
        plain = float(clopper_pearson_lower(row["count_top"], row["n"], row["alpha"]))
        assert 0 <= plain - row["p_lower"] < 1e-9


def test_a_precision_that_the_device_lacks_is_an_error(store: Store) -> None:
    run = replace(RUN, task=replace(RUN.certify, precision="tf32"))
    with pytest.raises(ConfigError, match="tf32 needs a GPU"):
        certify_here(store, run, ALL)


BFLOAT16_RUN = replace(RUN, task=replace(RUN.certify, precision="bfloat16"))


def notes(store: Store, run: Run) -> set[tuple[str | None, str | None]]:
    """What the files of a run note about its network: share of equal votes, compilation."""
    paths = [store.shard_path(run.place, shard) for shard in store.finished_shards(run.place)]
    found = [records.read_metadata(path) for path in paths]
    return {(metadata.get("equal_votes_float32"), metadata.get("compile")) for metadata in found}


def test_equal_votes_of_a_lower_precision_are_noted_alike_in_every_shard(store: Store) -> None:
    for shard in partition(ALL, 7):
        certify_here(store, BFLOAT16_RUN, shard)
    ((share, compile),) = notes(store, BFLOAT16_RUN)
    assert share is not None
    assert 0.97 < float(share) <= 1
    assert compile == "false"
    certify_here(store, RUN, ALL)
    assert notes(store, RUN) == {(None, "false")}


class Inverted(torch.nn.Module):
    """Stands for a network whose kernels are wrong: it votes for the class that is least likely."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs_BCHW: torch.Tensor) -> torch.Tensor:
        return -self.network(inputs_BCHW)  # type: ignore[no-any-return]


def test_a_precision_that_changes_many_votes_is_refused_unless_asked_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for_inference = certify.for_inference

    def broken(classifier: Any, precision: Any, *args: Any, **kwargs: Any) -> torch.nn.Module:
        network = for_inference(classifier, precision, *args, **kwargs)
        return network if precision == "float32" else Inverted(network)

    monkeypatch.setattr(certify, "for_inference", broken)
    with pytest.raises(ConfigError, match=r"bfloat16 and float32 give the same vote on \d+\.\d% of 1000 noisy images"):
        certify_here(store, BFLOAT16_RUN, ALL)
    assert not store.finished_shards(BFLOAT16_RUN.place)
    certify_here(store, BFLOAT16_RUN, ALL, replace(RESOURCES, min_equal_votes=0.0))
    ((share, _),) = notes(store, BFLOAT16_RUN)
    assert share is not None
    assert float(share) < 0.9


def test_compiling_that_cannot_pay_is_left_out(
    store: Store, expected: pa.Table, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    certify_here(store, RUN, ALL, replace(RESOURCES, compile="auto"))
    assert _records(store).equals(expected)
    assert notes(store, RUN) == {(None, "false")}
    assert "compile=auto: no, because the work takes only about" in caplog.text


def test_rows_certified_with_other_weights_are_not_taken(
    store: Store, expected: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(certify, "certify_images", _dying_after(5))
        with pytest.raises(Killed):
            certify_here(store, RUN, ALL)
    partial = store.partial_path(KEYS, ALL)
    metadata = {**records.read_metadata(partial), "checkpoint_sha256": "0" * 64}
    records.write_records(partial, records.read_records(partial), metadata)
    certify_here(store, RUN, ALL)
    assert _records(store).equals(expected)
    assert partial.with_name(f"{partial.name}.rejected-1").exists()


def test_a_sibling_s_saved_images_stay(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = partition(ALL, 11)
    with monkeypatch.context() as patch:
        patch.setattr(certify, "certify_images", _dying_after(5))
        with pytest.raises(Killed):
            certify_here(store, RUN, first)
    certify_here(store, RUN, second)
    assert store.partial_shards(KEYS) == [first]


def test_the_base_classifiers_clean_accuracy_is_told_beside_the_records(store: Store) -> None:
    trained = checkpoint.load_classifier(store.checkpoint_path(RUN.train.key), RUN.train, torch.device("cpu"))
    images = load_images("digits", "test")
    for part in partition(ALL, 13):
        certify_here(store, RUN, part)
        metadata = records.read_metadata(store.shard_path(KEYS, part))
        inputs_BCHW = torch.stack([torch.from_numpy(images.image(index)) for index in part])
        right = trained.classifier(inputs_BCHW).argmax(dim=1).numpy() == images.labels[list(part)]
        assert (metadata["clean_correct"], metadata["clean_seen"]) == (str(right.sum()), str(len(part)))
