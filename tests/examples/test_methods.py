"""The example methods against their papers' formulas, written out number by number."""

import importlib.util
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from configs.composition import compose_config
from jobs.plugins.files import read_plugins
from jobs.training.method import Batch

FOLDER = Path(__file__).parents[2] / "examples" / "methods"
M, B, K = 4, 6, 3
SIGMA = 0.25


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def logits(seed: int) -> Tensor:
    return torch.randn((M, B, K), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LABELS = [0, 1, 2, 0, 1, 2]


def softmax(row: list[float], beta: float = 1.0) -> list[float]:
    powers = [math.exp(beta * value) for value in row]
    return [power / sum(powers) for power in powers]


def mean_softmax(found: list[list[list[float]]], image: int, beta: float = 1.0) -> list[float]:
    rows = [softmax(draw[image], beta) for draw in found]
    return [sum(row[k] for row in rows) / len(rows) for k in range(K)]


def cross_entropy(row: list[float], label: int) -> float:
    return -math.log(softmax(row)[label])


def divergence(target: list[float], row: list[float]) -> float:
    return sum(p * math.log(p / q) for p, q in zip(target, softmax(row), strict=True))


def agree(found: Tensor, expected: list[Any]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)


def test_every_example_is_short_and_names_its_paper() -> None:
    paths = sorted(FOLDER.glob("*.py"))
    assert [path.stem for path in paths] == ["catrs", "consistency", "macer", "smoothmix", "stability"]
    for path in paths:
        text = path.read_text()
        assert len(text.splitlines()) <= 60, path
        assert " 20" in text.partition('"""\n')[0], f"{path}: which paper?"


def test_stability() -> None:
    clean, noisy = logits(0)[0], logits(1)
    expected = [
        cross_entropy(clean.tolist()[image], LABELS[image])
        + 2.0
        * sum(
            -sum(p * math.log(q) for p, q in zip(softmax(clean.tolist()[image]), softmax(draw[image]), strict=True))
            for draw in noisy.tolist()
        )
        / M
        for image in range(B)
    ]
    agree(example("stability").Stability(weight=2.0).losses(clean, noisy, torch.tensor(LABELS)), expected)


def test_consistency() -> None:
    found, rows = logits(0), logits(0).tolist()
    expected = []
    for image in range(B):
        mean = mean_softmax(rows, image)
        entropy = sum(cross_entropy(draw[image], LABELS[image]) for draw in rows) / M
        apart = sum(divergence(mean, draw[image]) for draw in rows) / M
        expected.append(entropy + 10.0 * apart + 0.5 * -sum(p * math.log(p) for p in mean))
    agree(example("consistency").Consistency().losses(found, torch.tensor(LABELS)), expected)


@pytest.mark.parametrize("gamma", [8.0, 0.7])
def test_macer(gamma: float) -> None:
    found, rows = logits(0), logits(0).tolist()
    expected, num_counted = [], 0
    for image in range(B):
        loss = -math.log(mean_softmax(rows, image)[LABELS[image]])
        scores = mean_softmax(rows, image, beta=4.0)
        second, first = sorted(range(K), key=lambda k: scores[k])[-2:]
        gap = norm.ppf(scores[first]) - norm.ppf(scores[second])
        if first == LABELS[image] and gap <= gamma:
            num_counted += 1
            loss += 12.0 * SIGMA / 2 * (gamma - gap)
        expected.append(loss)
    assert 0 < num_counted < B
    macer = example("macer").MACER(weight=12.0, gamma=gamma, beta=4.0)
    agree(macer.losses(found, torch.tensor(LABELS), SIGMA), expected)


def test_macers_gradient_is_finite_where_a_probability_is_one() -> None:
    certain = torch.zeros((M, 1, K))
    certain[:, :, 0] = 200.0
    certain.requires_grad_(True)
    example("macer").MACER().losses(certain, torch.tensor([0]), SIGMA).sum().backward()
    assert certain.grad is not None
    assert certain.grad.isfinite().all()


def test_smoothmix() -> None:
    clean, mixed, mix = logits(0), logits(1), [0.1, 0.2, 0.3, 0.4, 0.5, 0.0]
    rows, mixed_rows = clean.tolist(), mixed.tolist()
    expected, num_right = [[0.0] * B for _ in range(M)], 0
    for image in range(B):
        mean = mean_softmax(rows, image)
        target = [(1 - mix[image]) * p + mix[image] / K for p in mean]
        is_right = max(range(K), key=lambda k: mean[k]) == LABELS[image]
        num_right += is_right
        for draw in range(M):
            apart = divergence(target, mixed_rows[draw][image]) if is_right else 0.0
            expected[draw][image] = cross_entropy(rows[draw][image], LABELS[image]) + 5.0 * apart
    assert 0 < num_right < B
    smoothmix = example("smoothmix").SmoothMix(eta=5.0)
    agree(smoothmix.losses(clean, mixed, torch.tensor(LABELS), torch.tensor(mix, dtype=torch.float64)), expected)


def test_catrs() -> None:
    clean, worst = logits(0), logits(1)
    clean[:, 0, 0] += 9.0  # an image that all draws classify right
    rows, worst_rows = clean.tolist(), worst.tolist()
    uniform = torch.rand((M, B), generator=torch.Generator().manual_seed(3))
    expected, counts = [], []
    for image in range(B):
        entropies = sorted(cross_entropy(draw[image], LABELS[image]) for draw in rows)
        right = sum(max(range(K), key=lambda k: draw[image][k]) == LABELS[image] for draw in rows) / M
        count = max(1, sum(float(uniform[draw, image]) < right for draw in range(M)))
        counts.append(count)
        mean = mean_softmax(rows, image)
        added = max(divergence(mean, draw[image]) for draw in worst_rows) if count == M else 0.0
        expected.append(sum(entropies[:count]) / M + 2.0 * added)
    assert max(counts) == M
    assert min(counts) == 1
    agree(example("catrs").CatRS(weight=2.0).losses(clean, worst, torch.tensor(LABELS), uniform), expected)


class LinearNetworks:
    """A linear classifier."""

    def __init__(self, num_pixels: int) -> None:
        self.weight_KP = torch.randn((K, num_pixels), generator=torch.Generator().manual_seed(4))

    def noisy_logits(self, batch: Batch) -> Tensor:
        logits_RK = self.logits((batch.inputs_BCHW + batch.noise_MBCHW).flatten(0, 1))
        return logits_RK.reshape(*batch.noise_MBCHW.shape[:2], -1)

    def logits(self, inputs_BCHW: Tensor) -> Tensor:
        return inputs_BCHW.flatten(1) @ self.weight_KP.T

    frozen = logits


def test_the_worst_noise_is_like_gaussian_noise_and_changes_the_prediction_more() -> None:
    generator = torch.Generator().manual_seed(5)
    noise = SIGMA * torch.randn((M, B, 1, 8, 8), generator=generator)
    batch = Batch(
        inputs_BCHW=torch.rand((B, 1, 8, 8), generator=generator),
        labels_B=torch.tensor(LABELS),
        noise_MBCHW=noise,
        indices_B=torch.arange(B),
        sigma=SIGMA,
        epsilon=0.5,
        epoch=0,
        num_epochs=1,
    )
    networks = LinearNetworks(64)
    found = example("catrs").WorstNoise(num_steps=4)(networks, batch, generator).noise_MBCHW
    assert torch.equal(found[:M], noise)
    worst = found[M:]
    torch.testing.assert_close(worst.flatten(2).mean(dim=-1), noise.flatten(2).mean(dim=-1), rtol=0, atol=1e-5)
    torch.testing.assert_close(worst.flatten(2).norm(dim=-1), noise.flatten(2).norm(dim=-1), rtol=0.05, atol=0)
    given, moved = (networks.noisy_logits(one) for one in (batch, _with(batch, worst)))
    mean = given.softmax(dim=-1).mean(dim=0)
    unlike = [(mean * (mean.log() - one.log_softmax(dim=-1))).sum(dim=-1) for one in (given, moved)]
    assert (unlike[1] > unlike[0]).float().mean() > 0.9


def _with(batch: Batch, noise: Tensor) -> Batch:
    from dataclasses import replace

    return replace(batch, noise_MBCHW=noise)


def test_the_grid_of_these_methods_starts_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {path.name for path in FOLDER.glob("*.py")}
    assert set(read_plugins(compose_config("launch", ["grid=field_digits"])["plugins"])) == names
