"""The empirical-accuracy stage on real digits."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from configs.composition import compose_config
from jobs import attack
from jobs.datasets import dataset_info, load_images
from jobs.errors import ConfigError, RecordError
from jobs.files import records
from jobs.files.layouts import ATTACK
from jobs.files.store import Store
from jobs.networks import checkpoint
from jobs.networks.classifier import build_classifier
from jobs.specs.attack import AttackSpec
from jobs.specs.indices import IndexRange
from jobs.specs.runs import Run
from jobs.specs.units import Resources, ShardUnit
from jobs.validation import build
from pipeline.launch import launch
from pipeline.status import status
from smoothing.certify import LabelledImage, SmoothedClassifier
from smoothing.counts import LogitsError, class_counts
from smoothing.noise import NoiseStream
from tests.grids import tiny
from tests.jobs.units import PGD_RUN, RESOURCES, train_here

ALL = IndexRange(start=0, stop=12)


def _spec(**change: Any) -> AttackSpec:
    values: dict[str, Any] = {
        "train_key": PGD_RUN.train.key,
        "attack": "pgd",
        "sigma": 0.25,
        "epsilon": 0.5,
        "num_steps": 3,
        "m_test": 4,
        "n": 100,
        "alpha": 0.001,
        "seed": 0,
    }
    return build(AttackSpec, {**values, **change}, where="attack")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("trained"))
    train_here(store, PGD_RUN)
    return store


def _attack(store: Store, spec: AttackSpec, indices: IndexRange, resources: Resources = RESOURCES) -> pa.Table:
    attack.run(ShardUnit(run=_run(spec), indices=indices), store, resources)
    return _table(store, spec)


def _run(spec: AttackSpec) -> Run:
    return Run(train=PGD_RUN.train, task=spec, indices=ALL)


def _table(store: Store, spec: AttackSpec) -> pa.Table:
    place = _run(spec).place
    parts = [records.read_records(store.shard_path(place, shard), ATTACK) for shard in store.finished_shards(place)]
    return pa.concat_tables(parts).sort_by("index").drop_columns(["elapsed_s"])


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"attack": "ddn"},
        {"attack": "stein", "m_test": 130},
        {"attack": "stein_hard"},
        {"attack": "vanilla", "m_test": 1},
        {"inverse_temperature": 5.0},
    ],
    ids=lambda change: "-".join(map(str, change.values())) or "pgd",
)
def test_records_say_what_was_done(trained: Store, change: dict[str, Any]) -> None:
    spec = _spec(**change)
    table = _attack(trained, spec, ALL)
    assert table["index"].to_pylist() == list(ALL)
    assert table["label"].to_pylist() == load_images("digits", "test").labels[:12].tolist()
    assert pc.unique(table["attack"]).to_pylist() == [spec.attack]
    assert pc.unique(table["train_attack"]).to_pylist() == ["pgd"]
    assert all(sum(counts) == 100 for counts in table["counts"].to_pylist())
    assert pc.min(table["distance"]).as_py() >= 0
    assert 0 < pc.max(table["distance"]).as_py() <= 0.5
    assert table["correct"].to_pylist() == pc.equal(table["prediction"], table["label"]).to_pylist()


def test_attack_and_predict_draw_from_streams_of_their_own() -> None:
    """PREDICT would be asked about just the noise that the attack was made for."""
    spec = _spec(seed=3, m_test=4)
    image = LabelledImage(index=7, label=0, image_CHW=torch.zeros(1, 8, 8))
    blocks = {name: NoiseStream(seed=3, index=7, stage=name).block(0, (1, 8, 8)) for name in ("attack", "prediction")}
    assert not np.array_equal(blocks["attack"], blocks["prediction"])
    expected = 0.25 * torch.from_numpy(blocks["attack"][:4]).unsqueeze(1)
    assert torch.equal(attack._noise(image, spec), expected)


def test_predict_s_votes_are_those_of_its_own_stream(tmp_path: Path) -> None:
    """Of a classifier whose votes spread over the classes, so that other noise shows; epsilon 0 leaves images alone."""
    store = Store(tmp_path)
    torch.manual_seed(0)
    classifier = build_classifier(PGD_RUN.train.architecture, dataset_info("digits")).eval()
    last = list(classifier.parameters())[-1]
    last.data.zero_()
    checkpoint.save_classifier(store.checkpoint_path(PGD_RUN.train.key), classifier, PGD_RUN.train)
    table = _attack(store, _spec(epsilon=0.0, sigma=1.0), IndexRange(start=5, stop=6))
    image_CHW = torch.from_numpy(load_images("digits", "test").image(5))
    expected = {
        stage: class_counts(
            classifier,
            image_CHW,
            sigma=1.0,
            num_samples=100,
            num_classes=10,
            stream=NoiseStream(seed=0, index=5, stage=stage),
            batch_size=1000,
        ).tolist()
        for stage in ("prediction", "attack")
    }
    assert expected["prediction"] != expected["attack"]
    assert table["counts"].to_pylist() == [expected["prediction"]]


@pytest.mark.parametrize("kind", ["pgd", "ddn", "stein", "vanilla"])
def test_an_attack_does_not_follow_logits_that_are_not_finite(kind: str) -> None:
    spec = _spec(attack=kind, m_test=1)
    image = LabelledImage(index=0, label=0, image_CHW=torch.zeros(1, 8, 8))
    last = torch.nn.Linear(64, 10).requires_grad_(False)
    last.bias[3] = float("nan")
    broken = torch.nn.Sequential(torch.nn.Flatten(), last)
    with pytest.raises(LogitsError, match="not finite during the attack"):
        attack.attacked(broken, image, spec)


def test_no_radius_is_predict_on_the_clean_images(trained: Store) -> None:
    from jobs.networks.checkpoint import load_classifier

    table = _attack(trained, _spec(epsilon=0.0), ALL)
    classifier = load_classifier(
        trained.checkpoint_path(PGD_RUN.train.key), PGD_RUN.train, torch.device("cpu")
    ).classifier
    images = load_images("digits", "test")
    smoothed = SmoothedClassifier(base_classifier=classifier, sigma=0.25)
    expected = [smoothed.predict(torch.from_numpy(images.image(index)), n=100, first_index=index)[0] for index in ALL]
    assert table["prediction"].to_pylist() == expected
    assert table["distance"].to_pylist() == [0.0] * 12


def test_records_depend_neither_on_shards_nor_on_interruption(trained: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _attack(trained, _spec(seed=3), ALL)
    split = Store(trained.root.parent / "split")
    train_here(split, PGD_RUN)
    step, calls = attack.attacked, [0]

    def dying(classifier: torch.nn.Module, labelled: LabelledImage, spec: AttackSpec) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == 4:
            raise KeyboardInterrupt
        return step(classifier, labelled, spec)

    shards = [IndexRange(start=1, stop=12, step=2), IndexRange(start=0, stop=12, step=2)]
    with monkeypatch.context() as patch:
        patch.setattr(attack, "attacked", dying)
        with pytest.raises(KeyboardInterrupt):
            _attack(split, _spec(seed=3), shards[0])
    assert len(split.partial_shards(_run(_spec(seed=3)).place)) == 1
    for shard in shards:
        parts = _attack(split, _spec(seed=3), shard)
    assert parts.equals(whole)
    assert not split.partial_shards(_run(_spec(seed=3)).place)


def test_more_draws_begin_with_those_of_fewer() -> None:
    labelled = LabelledImage(index=5, label=0, image_CHW=torch.zeros(1, 8, 8))
    few, many = (attack._noise(labelled, _spec(m_test=m_test)) for m_test in (3, 250))
    assert torch.equal(few, many[:3])
    assert len(many) == 250
    other = attack._noise(replace(labelled, index=6), _spec(m_test=3))
    assert not torch.equal(few, other)


def test_attack_records_are_not_certification_records(trained: Store) -> None:
    spec = _spec()
    _attack(trained, spec, ALL)
    with pytest.raises(RecordError, match="kind 'attack', expected 'certification'"):
        records.read_records(trained.shard_path(_run(spec).place, ALL))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attack": "vanilla"}, "attack=vanilla has no noise: m_test must be 1, got 4"),
        ({"n": 10}, "n=10 draws can never predict anything at alpha=0.001"),
        ({"attack": "stein_hard", "inverse_temperature": 2.0}, "no effect with attack=stein_hard"),
        ({"attack": "magic"}, "'magic' is not valid"),
    ],
)
def test_what_cannot_be_attacked_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _spec(**change)
    assert message in str(caught.value)


def test_the_key_is_pinned() -> None:
    assert _spec(train_key="digits-gaussian-s0.25-74fc179a").key == "pgd-s0.25-e0.50-m4-t3-cdbc8a27"


def test_attacks_are_a_stage_of_the_launch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = tiny(
        tmp_path,
        "cluster=debug",
        "attack=digits",
        "attack.epsilon=[0.0,0.5]",
        "attack.num_steps=2",
        "attack.n=50",
        "attack.indices={start: 0, stop: 5, step: 1}",
        "certify.indices.stop=4",
    )
    assert launch(compose_config("launch", [*command, "dry_run=true"])) == 0
    out = capsys.readouterr().out
    assert re.search(r"^attack +images +30 +0 +18$", out, re.MULTILINE)  # 3 models, 2 radii, 3 shards of 5 images
    assert launch(compose_config("launch", command)) == 0
    table = records.read_records(Store(tmp_path).records_path("tiny", "attack"), ATTACK)
    assert len(table) == 3 * 2 * 5
    capsys.readouterr()
    assert launch(compose_config("launch", command)) == 0
    assert "nothing to do: the grid is complete" in capsys.readouterr().out
    assert status(compose_config("status", [f"results={tmp_path}", "grid=tiny"])) == 0
    assert "attack" in capsys.readouterr().out
    # A lost shard is made again, and the aggregate after it.
    victim = next(tmp_path.glob("runs/*/attack/*/*.parquet"))
    victim.unlink()
    Store(tmp_path).records_path("tiny", "attack").unlink()
    assert launch(compose_config("launch", command)) == 0
    again = records.read_records(Store(tmp_path).records_path("tiny", "attack"), ATTACK)
    assert again.drop_columns(["elapsed_s"]).equals(table.drop_columns(["elapsed_s"]))
