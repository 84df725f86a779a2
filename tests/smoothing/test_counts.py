"""Votes: the same for every batch size and order, and equal to a plain loop's."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from smoothing.counts import LogitsError, VoteCounter, class_counts, draws_between
from smoothing.distributions import GaussianNoise
from smoothing.noise import BLOCK_ROWS, NoiseStream

NUM_CLASSES = 5
SIGMA = 0.5
STREAM = NoiseStream(seed=11, index=40, stage="estimation")


def random_convnet() -> nn.Module:
    """A small network with batch normalisation whose votes spread over several classes."""
    generator = torch.Generator().manual_seed(1)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 3 * 3, NUM_CLASSES),
    )
    for name, values in network.state_dict().items():
        if name.endswith("running_var"):
            values.copy_(0.5 + torch.rand(values.shape, generator=generator))
        elif values.is_floating_point():
            values.copy_(torch.randn(values.shape, generator=generator))
    return network.eval()


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return random_convnet()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand((4, 3, 8, 8), generator=torch.Generator().manual_seed(1))


def votes(
    classifier: Callable[[Tensor], Tensor], image_CHW: Tensor, num_samples: int, batch_size: int = 500
) -> npt.NDArray[np.int64]:
    return class_counts(
        classifier,
        image_CHW,
        sigma=SIGMA,
        num_samples=num_samples,
        num_classes=NUM_CLASSES,
        stream=STREAM,
        batch_size=batch_size,
    )


def plain_loop_votes(classifier: nn.Module, image_CHW: Tensor, num_samples: int) -> npt.NDArray[np.int64]:
    counts = np.zeros(NUM_CLASSES, dtype=np.int64)
    for sample_nr in range(num_samples):
        block_nr, row = divmod(sample_nr, BLOCK_ROWS)
        noise = torch.from_numpy(STREAM.block(block_nr, tuple(image_CHW.shape))[row])
        with torch.no_grad():
            counts[int(classifier((image_CHW + SIGMA * noise)[None]).argmax())] += 1
    return counts


@pytest.mark.parametrize("batch_size", [1, 7, 100, 500, 1000, 10**6])
def test_batch_size_does_not_change_a_vote(network: nn.Module, images: Tensor, batch_size: int) -> None:
    expected = votes(network, images[0], 2345, batch_size=2000)
    assert np.all(expected > 50), "a vote that is always the same would show nothing"
    assert np.array_equal(votes(network, images[0], 2345, batch_size=batch_size), expected)


@pytest.mark.parametrize("num_samples", [1, 99, 100, 101, 500, 501, 1234])
def test_votes_sum_to_the_number_of_samples(network: nn.Module, images: Tensor, num_samples: int) -> None:
    counts = votes(network, images[0], num_samples)
    assert counts.sum() == num_samples
    assert counts.shape == (NUM_CLASSES,)
    assert counts.dtype == np.int64


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_threads_do_not_change_what_the_network_is_given(images: Tensor, num_threads: int) -> None:
    """Each thread runs whole pieces with a thread to itself, so that rounding is the same for any number."""
    seen: list[tuple[int, Tensor]] = []

    def recorder(inputs_BCHW: Tensor) -> Tensor:
        seen.append((torch.get_num_threads(), inputs_BCHW.clone()))
        return inputs_BCHW.flatten(1)[:, :NUM_CLASSES]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = votes(recorder, images[0], 1234)
        pieces = {piece.numpy().tobytes() for _, piece in seen}
        seen.clear()
        torch.set_num_threads(num_threads)
        assert np.array_equal(votes(recorder, images[0], 1234), expected)
        assert torch.get_num_threads() == num_threads
    finally:
        torch.set_num_threads(before)
    assert {piece.numpy().tobytes() for _, piece in seen} == pieces
    assert {threads for threads, _ in seen} == {1}


def test_other_images_do_not_change_the_votes(network: nn.Module, images: Tensor) -> None:
    forwards = [votes(network, image_CHW, 300) for image_CHW in images]
    backwards = [votes(network, image_CHW, 300) for image_CHW in images.flip(0)]
    assert np.array_equal(forwards, backwards[::-1])


@pytest.mark.parametrize("num_samples", [1, 100, 537])
def test_votes_equal_a_plain_loops(network: nn.Module, images: Tensor, num_samples: int) -> None:
    expected = plain_loop_votes(network, images[1], num_samples)
    assert np.array_equal(votes(network, images[1], num_samples), expected)


def test_more_samples_only_add_votes(network: nn.Module, images: Tensor) -> None:
    counts = np.array([votes(network, images[0], num_samples) for num_samples in range(95, 106)])
    added = np.diff(counts, axis=0)
    assert np.all(added >= 0)
    assert np.all(added.sum(axis=1) == 1)


def inputs_seen(image_CHW: Tensor, num_samples: int, batch_size: int) -> list[Tensor]:
    """What the classifier is given, call by call; its votes are all for class 0."""
    seen: list[Tensor] = []

    def recorder(inputs_BCHW: Tensor) -> Tensor:
        seen.append(inputs_BCHW.clone())
        return torch.zeros(len(inputs_BCHW), NUM_CLASSES)

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # several would take pieces in any order
    try:
        assert votes(recorder, image_CHW, num_samples, batch_size=batch_size).tolist() == [num_samples, 0, 0, 0, 0]
    finally:
        torch.set_num_threads(before)
    return seen


def test_classifier_sees_the_image_plus_scaled_noise(images: Tensor) -> None:
    noise = np.concatenate([STREAM.block(block_nr, (3, 8, 8)) for block_nr in range(12)])
    expected_BCHW = images[0] + SIGMA * torch.from_numpy(noise)
    assert torch.equal(torch.cat(inputs_seen(images[0], 1150, 1000))[:1150], expected_BCHW[:1150])


@pytest.mark.parametrize("batch_size", [1, 999, 1500, 10**6])
def test_classifier_on_a_cpu_sees_the_same_pieces_for_every_batch_size(images: Tensor, batch_size: int) -> None:
    """Equal shapes are what makes rounding, and so every vote, the same on any machine."""
    expected, seen = inputs_seen(images[0], 2345, 1000), inputs_seen(images[0], 2345, batch_size)
    assert len(seen) == len(expected) > 1
    assert all(torch.equal(piece, other) for piece, other in zip(seen, expected, strict=True))


def test_counting_leaves_image_and_network_alone(network: nn.Module, images: Tensor) -> None:
    image_CHW, before = images[0].clone(), {name: value.clone() for name, value in network.state_dict().items()}
    votes(network, image_CHW, 100)
    assert torch.equal(image_CHW, images[0])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(("num_samples", "batch_size"), [(0, 100), (-5, 100), (100, 0), (100, -1)])
def test_at_least_one_sample_and_one_row(network: nn.Module, images: Tensor, num_samples: int, batch_size: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        votes(network, images[0], num_samples, batch_size=batch_size)


def test_whole_batches_count_what_pieces_count(network: nn.Module, images: Tensor) -> None:
    """The way of a GPU, here on a CPU: batches of one shape with rows of several images, some of which are empty."""
    streams = [NoiseStream(seed=11, index=40 + nr, stage="estimation") for nr in range(len(images))]
    draws = [list(draws_between(slot, stream, 0, 250 + 60 * slot)) for slot, stream in enumerate(streams)]
    batches = [[*draws[0], *draws[1][:2]], [draws[1][2], draws[1][3], *draws[2]], draws[3]]
    found = {}
    for way in ("_votes_in_pieces", "_votes_at_once"):
        counter = VoteCounter(
            network,
            GaussianNoise(SIGMA),
            num_classes=NUM_CLASSES,
            image_shape=tuple(images[0].shape),
            batch_size=600,
            device=torch.device("cpu"),
        )
        for slot, image_CHW in enumerate(images):
            counter.assign(slot, image_CHW)
        with torch.inference_mode():
            for batch in batches:
                counter._add(batch, getattr(counter, way)(batch))
        found[way] = counter.votes(range(len(images)))
    assert found["_votes_at_once"].sum(axis=1).tolist() == [250, 310, 370, 430]
    # Shapes differ, and with them the rounding: a vote on the edge may, too.
    assert np.abs(found["_votes_at_once"] - found["_votes_in_pieces"]).max() <= 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("column", [0, NUM_CLASSES - 1])
def test_a_row_without_finite_logits_is_no_vote(images: Tensor, bad: float, column: int) -> None:
    """One row of many is enough: argmax would take a nan for a class."""

    def classifier(inputs_BCHW: Tensor) -> Tensor:
        logits_BK = torch.zeros(len(inputs_BCHW), NUM_CLASSES)
        logits_BK[inputs_BCHW[:, 0, 0, 0] == inputs_BCHW[:, 0, 0, 0].max(), column] = bad
        return logits_BK

    with pytest.raises(LogitsError, match=r"logits are not finite for \d+ of 200 noisy images"):
        votes(classifier, images[0], 200)


def test_rows_that_do_not_count_need_no_finite_logits(network: nn.Module, images: Tensor) -> None:
    """A block is computed whole; those of its rows beyond n are nobody's."""
    expected = votes(network, images[0], 301)
    last = images[0] + SIGMA * torch.from_numpy(STREAM.block(3, (3, 8, 8))[-1])

    def classifier(inputs_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = network(inputs_BCHW).clone()
        logits_BK[(inputs_BCHW == last).flatten(1).all(dim=1)] = float("nan")
        return logits_BK

    assert np.array_equal(votes(classifier, images[0], 301), expected)
    with pytest.raises(LogitsError, match="for 1 of 400 noisy images"):
        votes(classifier, images[0], 400)


@pytest.mark.parametrize("num_columns", [NUM_CLASSES - 1, NUM_CLASSES + 1])
def test_logits_are_one_for_each_class(images: Tensor, num_columns: int) -> None:
    with pytest.raises(LogitsError, match=rf"logits of shape \(\d+, {num_columns}\) for \d+ images of 5 classes"):
        votes(lambda inputs_BCHW: torch.zeros(len(inputs_BCHW), num_columns), images[0], 100)
