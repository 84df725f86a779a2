import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from jobs import train
from jobs.datasets import dataset_info, load_images
from jobs.errors import TrainingDivergedError
from jobs.files.store import Store
from jobs.networks import checkpoint
from jobs.networks.classifier import Classifier, build_classifier
from jobs.training import builtin
from jobs.training.distributed import Group
from jobs.training.feeding import epoch_batches, make_loader
from jobs.training.schedules import learning_rate_at
from jobs.training.steps import Stepper
from tests.jobs.units import GAUSSIAN_RUN, PGD_RUN, on_model, retrained, train_here

RUN = retrained(PGD_RUN, epochs=4)
KEY = RUN.train.key


class Killed(BaseException):
    """Stands for a process that ends at once: nothing catches it."""


def _weights(store: Store, key: str = KEY) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = checkpoint.load(store.checkpoint_path(key))["state_dict"]
    return state


def _assert_same_bits(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("undisturbed"))
    train_here(store, RUN)
    return store


def _die_after(calls: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, but the call after the first ``calls`` is the process's last act."""
    left = [calls]

    def dying(*args: Any, **kwargs: Any) -> Any:
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return function(*args, **kwargs)

    return dying


@pytest.mark.parametrize("epochs_done", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("at", ["_train_epoch", "_save_state"])
def test_training_killed_anywhere_goes_on_to_the_same_bits(
    tmp_path: Path, undisturbed: Store, monkeypatch: pytest.MonkeyPatch, epochs_done: int, at: str
) -> None:
    store = Store(tmp_path)
    if epochs_done < RUN.train.epochs:
        with monkeypatch.context() as patch:
            patch.setattr(train, at, _die_after(epochs_done, getattr(train, at)))
            with pytest.raises(Killed):
                train_here(store, RUN)
        assert not store.is_trained(KEY)
        assert store.saved_epochs(KEY) == [*range(1, epochs_done + 1)][-2:]
    train_here(store, RUN)
    _assert_same_bits(_weights(store), _weights(undisturbed))
    assert not store.state_dir(KEY).exists()


def test_killed_inside_an_epoch_goes_on_to_the_same_bits(
    tmp_path: Path, undisturbed: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "_step", _die_after(50, Stepper._step))  # 21 steps an epoch
        with pytest.raises(Killed):
            train_here(store, RUN)
    train_here(store, RUN)
    _assert_same_bits(_weights(store), _weights(undisturbed))


def test_a_damaged_state_falls_back_to_the_one_before(
    tmp_path: Path, undisturbed: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(train, "_train_epoch", _die_after(3, train._train_epoch))
        with pytest.raises(Killed):
            train_here(store, RUN)
    newest = store.state_path(KEY, 3)
    newest.write_bytes(newest.read_bytes()[:1000])
    train_here(store, RUN)
    _assert_same_bits(_weights(store), _weights(undisturbed))


def test_a_state_that_another_process_removes_while_it_is_written_is_no_error(
    tmp_path: Path, undisturbed: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process finishes, and removes the folder, between writing the state and reading it back."""
    store, load = Store(tmp_path), checkpoint.load

    def overtaken(path: Path) -> dict[str, Any]:
        shutil.copy(undisturbed.checkpoint_path(KEY), store.checkpoint_path(KEY))
        shutil.rmtree(store.state_dir(KEY))
        return load(path)

    monkeypatch.setattr(checkpoint, "load", overtaken)
    train_here(store, RUN)
    monkeypatch.undo()
    _assert_same_bits(_weights(store), _weights(undisturbed))
    assert not store.state_dir(KEY).exists()


def test_a_finished_run_is_not_touched(undisturbed: Store) -> None:
    before = undisturbed.checkpoint_path(KEY).stat()
    train_here(undisturbed, RUN)
    after = undisturbed.checkpoint_path(KEY).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_the_epochs_file_tells_the_story(undisturbed: Store) -> None:
    epochs = pq.read_table(undisturbed.epochs_path(KEY)).to_pylist()
    assert [row["epoch"] for row in epochs] == [0, 1, 2, 3]
    assert [row["epsilon"] for row in epochs] == [0.0, 0.25, 0.25, 0.25]
    assert epochs[-1]["accuracy"] > 0.5  # chance is 0.1


def test_epsilon_is_zero_first_and_grows_linearly() -> None:
    spec = replace(PGD_RUN.train, epsilon=1.0, warmup_epochs=10)
    assert [train.epsilon_at(spec, epoch) for epoch in (0, 1, 5, 10, 11)] == pytest.approx([0, 0.1, 0.5, 1, 1])
    assert train.epsilon_at(replace(spec, warmup_epochs=0), 0) == 1.0


def test_the_learning_rate_steps_down() -> None:
    spec = replace(PGD_RUN.train, learning_rate=0.1, lr_step_epochs=50, lr_gamma=0.1)
    rates = [train.learning_rate_at(spec, epoch) for epoch in (0, 49, 50, 100, 149)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.001, 0.001])


def test_training_is_sgd_as_written_on_paper(tmp_path: Path) -> None:
    """Momentum, weight decay, schedule, order and noise, step by step without an optimizer of torch's."""
    spec = replace(
        GAUSSIAN_RUN.train,
        epochs=3,
        learning_rate=0.02,
        lr_step_epochs=2,
        lr_gamma=0.1,
        momentum=0.8,
        weight_decay=0.01,
    )
    train_here(Store(tmp_path), on_model(GAUSSIAN_RUN, spec))

    torch.manual_seed(spec.seed)
    info = dataset_info(spec.dataset)
    classifier = build_classifier(spec.architecture, info).to(memory_format=torch.channels_last).train()
    loader = make_loader(load_images(spec.dataset, "train", {}), info.augmentation, torch.device("cpu"))
    velocities = [torch.zeros_like(weight) for weight in classifier.parameters()]
    first_labels = []
    for learning_rate, epoch in zip([0.02, 0.02, 0.002], range(3), strict=True):
        generator = train._epoch(spec, epoch, Group(), torch.device("cpu")).shared
        for step, images in enumerate(epoch_batches(loader, spec.batch_size, generator, Group())):
            inputs, labels = images.inputs_BCHW, images.labels_B
            if step == 0:
                first_labels.append(labels.tolist())
            noise = spec.sigma * torch.randn((len(inputs), 1, *inputs.shape[1:]), generator=generator)[:, 0]
            noisy = (inputs + noise).contiguous(memory_format=torch.channels_last)
            loss = torch.nn.functional.cross_entropy(classifier(noisy), labels)
            gradients = torch.autograd.grad(loss, list(classifier.parameters()))
            with torch.no_grad():
                for weight, velocity, gradient in zip(classifier.parameters(), velocities, gradients, strict=True):
                    velocity.mul_(0.8).add_(gradient + 0.01 * weight)
                    weight.sub_(learning_rate * velocity)
    assert len(set(map(tuple, first_labels))) == 3, "every epoch has an order of its own"
    trained = _weights(Store(tmp_path), spec.key)
    for name, weight in classifier.state_dict().items():
        torch.testing.assert_close(trained[name], weight, rtol=0, atol=1e-3)


def test_attack_and_training_step_see_the_same_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attacked: list[tuple[torch.Tensor, torch.Tensor]] = []
    trained_on: list[torch.Tensor] = []
    attack, forward = builtin.smoothadv_pgd, Classifier.forward

    def watch_attack(classifier: Any, inputs: Any, labels: Any, noise: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        # The attack sees frozen statistics, and parameters that take no gradient.
        network = classifier.__self__.attacked  # of the method StepNetworks.frozen
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())
        adversarial = attack(classifier, inputs, labels, noise, **kwargs)
        attacked.append((adversarial, noise))
        return adversarial

    def watch_forward(self: Classifier, inputs: torch.Tensor) -> torch.Tensor:
        if self.training:
            trained_on.append(inputs.detach())
        return forward(self, inputs)

    monkeypatch.setattr(builtin, "smoothadv_pgd", watch_attack)
    monkeypatch.setattr(Classifier, "forward", watch_forward)
    train_here(Store(tmp_path), retrained(RUN, epochs=2))
    assert len(attacked) == len(trained_on) == 2 * 21
    for (adversarial, noise), inputs in zip(attacked, trained_on, strict=True):
        assert torch.equal(inputs, (adversarial + noise).flatten(0, 1))


def test_diverging_training_stops_and_keeps_the_last_good_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, step = Store(tmp_path), Stepper._step
    num_steps = [0]

    def diverge_in_the_third_epoch(stepper: Stepper, *args: Any) -> Any:
        num_steps[0] += 1
        if num_steps[0] == 45:  # 21 steps an epoch
            with torch.no_grad():
                next(stepper.classifier.parameters()).fill_(float("nan"))
        return step(stepper, *args)

    monkeypatch.setattr(Stepper, "_step", diverge_in_the_third_epoch)
    with pytest.raises(TrainingDivergedError, match=r"in epoch 2 .* not finite; the state after 2 epochs is kept"):
        train_here(store, GAUSSIAN_RUN)
    assert store.saved_epochs(GAUSSIAN_RUN.train.key) == [1, 2]
    for epoch in (1, 2):
        state = checkpoint.load(store.state_path(GAUSSIAN_RUN.train.key, epoch))["state_dict"]
        assert all(bool(tensor.isfinite().all()) for tensor in state.values())
    assert not store.is_trained(GAUSSIAN_RUN.train.key)


def test_the_epochs_file_is_complete_after_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(train, "_train_epoch", _die_after(2, train._train_epoch))
        with pytest.raises(Killed):
            train_here(store, RUN)
    train_here(store, RUN)
    assert [row["epoch"] for row in pq.read_table(store.epochs_path(KEY)).to_pylist()] == [0, 1, 2, 3]


def test_a_state_of_another_spec_is_not_gone_on_with(
    tmp_path: Path, undisturbed: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = Store(tmp_path), retrained(RUN, seed=7)
    with monkeypatch.context() as patch:
        patch.setattr(train, "_train_epoch", _die_after(2, train._train_epoch))
        with pytest.raises(Killed):
            train_here(store, other)
    store.state_dir(KEY).parent.mkdir(parents=True)
    store.state_dir(other.train.key).rename(store.state_dir(KEY))
    train_here(store, RUN)
    _assert_same_bits(_weights(store), _weights(undisturbed))


def test_a_training_that_begins_with_given_weights_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Store(tmp_path / "first")
    train_here(first, RUN)
    source = first.checkpoint_path(KEY)
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    tuned = retrained(
        RUN,
        checkpoint_sha256=sha256,
        init="train",
        optimizer="adamw",
        momentum=0.0,
        schedule="cosine",
        lr_gamma=1.0,
        learning_rate=0.001,
        clip_norm=1.0,
    )
    assert tuned.train.key != KEY
    stores = [Store(tmp_path / name) for name in ("undisturbed", "killed")]
    for store in stores:
        store.source_path(sha256).parent.mkdir(parents=True)
        shutil.copyfile(source, store.source_path(sha256))
    train_here(stores[0], tuned)
    with monkeypatch.context() as patch:
        patch.setattr(train, "_train_epoch", _die_after(2, train._train_epoch))
        with pytest.raises(Killed):
            train_here(stores[1], tuned)
    train_here(stores[1], tuned)
    tuned_weights = [_weights(store, tuned.train.key) for store in stores]
    _assert_same_bits(*tuned_weights)
    before = _weights(first, KEY)
    moved = [float((tuned_weights[0][name] - before[name]).abs().max()) for name in before if "weight" in name]
    # It goes on from there: three epochs of Adam at 0.001 move no weight far, and all layers.
    assert min(moved) > 0
    assert max(moved) < 0.2


def test_the_learning_rate_falls_along_half_a_cosine() -> None:
    spec = replace(RUN.train, schedule="cosine", lr_gamma=1.0, epochs=4, learning_rate=0.2)
    assert [learning_rate_at(spec, epoch) for epoch in range(4)] == pytest.approx([0.2, 0.1707107, 0.1, 0.0292893])
