"""What one optimizer step does, for every method and attack."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from jobs.datasets import dataset_info, load_images
from jobs.errors import ConfigError
from jobs.networks.classifier import Classifier, build_classifier
from jobs.specs.train import TrainSpec
from jobs.training import builtin
from jobs.training.distributed import Group
from jobs.training.feeding import ImageBatch
from jobs.training.schedules import epsilon_at
from jobs.training.steps import Epoch, Stepper
from jobs.validation import build
from smoothing.gradients import GradientEstimator, PlugInEstimator, SteinEstimator
from tests.trees import inputs_of

BASE: dict[str, Any] = {
    "dataset": "digits",
    "architecture": "digits_cnn",
    "sigma": 0.25,
    "epsilon": 0.5,
    "num_steps": 2,
    "epochs": 1,
    "batch_size": 12,
    "learning_rate": 0.05,
    "lr_step_epochs": 1,
    "lr_gamma": 1.0,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "seed": 0,
}
GAUSSIAN = {"method": "gaussian", "epsilon": 0.0, "num_steps": 0}
METHODS: list[dict[str, Any]] = [
    GAUSSIAN,
    {"method": "smoothadv", "attack": "pgd", "m_train": 1},
    {"method": "smoothadv", "attack": "pgd", "m_train": 3},
    {"method": "smoothadv", "attack": "ddn", "m_train": 2},
    {"method": "smoothadv", "attack": "ddn", "ddn_initial_norm": "epsilon"},
    {"method": "smoothadv", "attack": "stein", "m_train": 4},
    {"method": "smoothadv", "attack": "stein_hard", "m_train": 4},
    {"method": "smoothadv", "attack": "pgd", "m_train": 2, "inverse_temperature": 4.0},
    {"method": "vanilla", "attack": "pgd", "sigma": 0.0},
    {"method": "vanilla", "attack": "ddn", "sigma": 0.0},
    {"method": "vanilla_noise", "attack": "pgd", "m_train": 2},
]


def _spec(**change: Any) -> TrainSpec:
    return build(TrainSpec, {**BASE, **change}, where="train")


def _stepper(spec: TrainSpec, group: Group | None = None) -> Stepper:
    torch.manual_seed(0)
    classifier = build_classifier(spec.architecture, dataset_info(spec.dataset))
    optimizer = torch.optim.SGD(classifier.parameters(), lr=spec.learning_rate)
    return Stepper(spec=spec, classifier=classifier, replica=classifier, optimizer=optimizer, group=group or Group())


def _epoch(spec: TrainSpec) -> Epoch:
    return Epoch(
        number=0, epsilon=spec.epsilon, shared=torch.Generator().manual_seed(1), own=torch.Generator().manual_seed(2)
    )


def _batch(num_images: int = 12) -> tuple[Tensor, Tensor]:
    images = load_images("digits", "train")
    return torch.from_numpy(inputs_of(images)[:num_images]), torch.from_numpy(images.labels[:num_images])


def _images(inputs: Tensor, labels: Tensor) -> ImageBatch:
    return ImageBatch(num_images=len(labels), inputs_BCHW=inputs, labels_B=labels, indices_B=torch.arange(len(labels)))


class Watch:
    """The inputs of every training forward pass, and where the attacks began and ended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[Tensor] = []
        self.estimators: list[GradientEstimator] = []
        self.attacks: list[tuple[Tensor, Tensor]] = []  # adversarial images, the noise that the attack saw
        forward = Classifier.forward

        def watched(classifier: Classifier, inputs: Tensor) -> Tensor:
            if classifier.training:
                self.rows.append(inputs.detach())
            return forward(classifier, inputs)

        monkeypatch.setattr(Classifier, "forward", watched)
        for name in ("smoothadv_pgd", "smoothadv_ddn"):
            monkeypatch.setattr(builtin, name, self._watched(getattr(builtin, name)))

    def _watched(self, attack: Any) -> Any:
        def watched(classifier: Any, inputs: Tensor, labels: Tensor, noise: Tensor, **settings: Any) -> Tensor:
            found: Tensor = attack(classifier, inputs, labels, noise, **settings)
            self.attacks.append((found, noise))
            self.estimators.append(settings["estimator"])
            return found

        return watched


@pytest.mark.parametrize("change", METHODS, ids=lambda change: "-".join(map(str, change.values())))
def test_every_method_takes_one_step_on_all_draws(change: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    spec, watch = _spec(**change), Watch(monkeypatch)
    stepper = _stepper(spec)
    before = [parameter.detach().clone() for parameter in stepper.classifier.parameters()]
    inputs, labels = _batch()
    (sums,) = stepper.steps(_images(inputs, labels), _epoch(spec))
    assert sums[2] == 12 * spec.m_train == len(watch.rows[0])
    assert len(watch.rows) == 1
    assert any(not torch.equal(old, new) for old, new in zip(before, stepper.classifier.parameters(), strict=True))
    assert all(parameter.requires_grad for parameter in stepper.classifier.parameters())
    assert stepper.classifier.training
    rows = watch.rows[0].reshape(spec.m_train, *inputs.shape)
    if spec.method == "gaussian":
        assert not watch.attacks
    else:
        ((found, seen),) = watch.attacks
        assert (found - inputs).flatten(1).norm(dim=1).max() <= spec.epsilon + 1e-6
        assert not torch.equal(found, inputs)
        if spec.method == "smoothadv":  # Pseudocode 1: the attack's noise is the step's
            assert torch.equal(rows, found + seen)
        else:  # on the base classifier
            assert torch.equal(seen, torch.zeros_like(inputs).unsqueeze(0))
            noise = rows - found
            assert (noise.std().item() == pytest.approx(0.25, rel=0.1)) == (spec.method == "vanilla_noise")
            assert torch.equal(rows[0], found) == (spec.method == "vanilla")


def test_sub_batches_take_a_step_for_each_part_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = _spec(method="smoothadv", attack="pgd", m_train=3, multi_noise="sub_batches", batch_size=14)
    watch, stepper = Watch(monkeypatch), _stepper(spec)
    inputs, labels = _batch(14)
    all_sums = list(stepper.steps(_images(inputs, labels), _epoch(spec)))
    assert [sums[2].item() for sums in all_sums] == [12, 12, 12]  # 4 images, 3 draws each; 2 are left out
    assert len(watch.rows) == len(watch.attacks) == 3
    for part_nr, (found, _) in enumerate(watch.attacks):
        distances = (found - inputs[4 * part_nr : 4 * part_nr + 4]).flatten(1).norm(dim=1)
        assert distances.max() <= spec.epsilon + 1e-6


def test_one_process_and_two_draw_the_same_noise() -> None:
    spec = _spec(method="smoothadv", attack="pgd", m_train=2)
    inputs, _ = _batch()
    whole = _stepper(spec)._noise(12, inputs, torch.Generator().manual_seed(1))
    parts = []
    for rank in range(2):
        group = Group(rank=rank, num_processes=2)
        parts.append(_stepper(spec, group)._noise(12, group.share(inputs), torch.Generator().manual_seed(1)))
    assert torch.equal(torch.cat(parts, dim=1), whole)
    assert whole.std().item() == pytest.approx(0.25, rel=0.1)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"attack": "pgd", "inverse_temperature": 3.0}, PlugInEstimator(inverse_temperature=3.0)),
        ({"attack": "stein_hard"}, SteinEstimator(sigma=0.25, hard=True)),
    ],
)
def test_estimators_follow_the_spec(
    change: dict[str, Any], expected: GradientEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, watch = _spec(method="smoothadv", **change), Watch(monkeypatch)
    list(_stepper(spec).steps(_images(*_batch()), _epoch(spec)))
    assert watch.estimators == [expected]


def test_the_published_warm_up_begins_above_zero() -> None:
    spec = _spec(method="smoothadv", attack="pgd", epsilon=1.0, warmup_epochs=10)
    published = replace(spec, warmup="published")
    assert [epsilon_at(spec, epoch) for epoch in (0, 1, 9, 10)] == pytest.approx([0, 0.1, 0.9, 1])
    assert [epsilon_at(published, epoch) for epoch in (0, 1, 9, 10)] == pytest.approx([0.1, 0.2, 1, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "vanilla", "attack": "pgd"}, "method=vanilla is without noise: sigma must be 0"),
        ({"method": "vanilla_noise", "attack": "pgd", "sigma": 0.0}, "method=vanilla_noise trains with noise"),
        ({"method": "vanilla_noise", "attack": "none"}, "method=vanilla_noise needs an attack"),
        ({"method": "vanilla_noise", "attack": "stein"}, "attack=stein estimates the smoothed"),
        ({**GAUSSIAN, "inverse_temperature": 2.0}, "inverse_temperature=2.0 has no effect"),
        ({"method": "smoothadv", "attack": "pgd", "ddn_initial_norm": "epsilon"}, "ddn_initial_norm=epsilon has no"),
        ({"method": "smoothadv", "attack": "pgd", "multi_noise": "sub_batches"}, "multi_noise=sub_batches has no"),
        ({"method": "smoothadv", "attack": "pgd", "warmup": "published"}, "warmup=published has no effect"),
        ({**GAUSSIAN, "input_layer": "center"}, "input_layer=center has no effect without train.checkpoint=PATH"),
        ({**GAUSSIAN, "num_processes": 13}, "batch_size=12 leaves processes or sub-batches without images"),
        ({**GAUSSIAN, "checkpoint_sha256": "abc"}, "checkpoint_sha256"),
    ],
)
def test_what_does_not_go_together_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _spec(**change)
    assert message in str(caught.value)


def test_the_key_names_the_method() -> None:
    assert _spec(method="vanilla", attack="pgd", sigma=0.0).key.startswith("digits-vanilla-pgd-s0.00-e0.50-m1-t2-")
    assert _spec(method="vanilla_noise", attack="ddn").key.startswith("digits-vanilla_noise-ddn-s0.25-e0.50-m1-t2-")
    assert _spec(method="smoothadv", attack="ddn").key.startswith("digits-ddn-s0.25-e0.50-m1-t2-")
