"""SmoothAdv against optima in closed form, and its promises on random small models."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from smoothing.attacks import project_l2, smoothadv_pgd, unit_direction
from smoothing.counts import BaseClassifier
from smoothing.gradients import smoothed_cross_entropy

quick = settings(deadline=None, derandomize=True, max_examples=150)
SHAPE = (3, 5, 7)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def norms(vectors_BCHW: Tensor) -> Tensor:
    norm_B: Tensor = torch.linalg.vector_norm(vectors_BCHW.double().flatten(1), dim=1)
    return norm_B


def linear_model(*, scale: float = 1.0) -> tuple[Tensor, BaseClassifier]:
    """Unit weights and the model that answers class 1 where weights . x > 0."""
    weights_CHW = torch.randn(SHAPE, generator=seeded(1))
    weights_CHW /= weights_CHW.norm()

    def model(inputs_BCHW: Tensor) -> Tensor:
        score_B = scale * (inputs_BCHW * weights_CHW).sum(dim=(1, 2, 3))
        return torch.stack([-score_B, score_B], dim=1)

    return weights_CHW, model


def inner_images(num_images: int) -> tuple[Tensor, Tensor]:
    """Images so far from 0 and 1 that the pixel box does not bind, and labels of both classes."""
    inputs_BCHW = 0.4 + 0.2 * torch.rand((num_images, *SHAPE), generator=seeded(2))
    return inputs_BCHW, torch.arange(num_images) % 2


def attack(
    model: BaseClassifier,
    inputs_BCHW: Tensor,
    labels_B: Tensor,
    *,
    epsilon: float = 0.25,
    num_steps: int = 3,
    m_train: int = 1,
    sigma: float = 0.0,
    seed: int = 0,
) -> Tensor:
    noise_MBCHW = sigma * torch.randn((m_train, *inputs_BCHW.shape), generator=seeded(3))
    return smoothadv_pgd(
        model, inputs_BCHW, labels_B, noise_MBCHW, epsilon=epsilon, num_steps=num_steps, generator=seeded(seed)
    )


@pytest.mark.parametrize("num_draws", [1, 2, 7, 16])
def test_smoothed_cross_entropy_is_minus_log_of_the_mean_softmax(num_draws: int) -> None:
    logits_MBK = 3 * torch.randn((num_draws, 6, 10), generator=seeded(0), dtype=torch.float64)
    labels_B = torch.tensor([0, 9, 3, 3, 5, 1])
    mean_softmax_BK = logits_MBK.softmax(dim=-1).mean(dim=0)
    expected_B = -mean_softmax_BK[torch.arange(6), labels_B].log()
    # 1e-13: rounding in float64.
    torch.testing.assert_close(smoothed_cross_entropy(logits_MBK, labels_B), expected_B, rtol=1e-13, atol=1e-13)


def test_one_draw_gives_the_ordinary_cross_entropy() -> None:
    logits_BK, labels_B = torch.randn((8, 10), generator=seeded(0)), torch.arange(8)
    expected_B = functional.cross_entropy(logits_BK, labels_B, reduction="none")
    torch.testing.assert_close(smoothed_cross_entropy(logits_BK[None], labels_B), expected_B)


def test_smoothed_cross_entropy_survives_huge_logits() -> None:
    logits_MBK = torch.tensor([[[0.0, 1e4]], [[0.0, 2e4]]], requires_grad=True)
    loss_B = smoothed_cross_entropy(logits_MBK, torch.tensor([0]))
    (gradient_MBK,) = torch.autograd.grad(loss_B.sum(), logits_MBK)
    # The naive formula is -log(0). The second draw's share e^-20000 vanishes beside e^-10000.
    assert loss_B.item() == pytest.approx(1e4 + math.log(2), rel=1e-6)
    assert gradient_MBK.flatten().tolist() == [-1.0, 1.0, 0.0, 0.0]


def test_smoothed_cross_entropy_is_at_most_the_mean_of_cross_entropies() -> None:
    """Jensen: the two losses are different, and the attack must use the smaller."""
    logits_MBK, labels_B = 5 * torch.randn((4, 8, 10), generator=seeded(0)), torch.arange(8)
    each_MB = torch.stack([functional.cross_entropy(logits, labels_B, reduction="none") for logits in logits_MBK])
    assert torch.all(smoothed_cross_entropy(logits_MBK, labels_B) < each_MB.mean(dim=0))


def assert_is_linear_optimum(
    adversarial_BCHW: Tensor, inputs_BCHW: Tensor, labels_B: Tensor, weights_CHW: Tensor, epsilon: float
) -> None:
    away_B111 = (1.0 - 2.0 * labels_B)[:, None, None, None]
    optimum_BCHW = inputs_BCHW + epsilon * away_B111 * weights_CHW
    # Rounding of pixels near 1 in float32 (3e-8), and the share of epsilon that projection gives away.
    torch.testing.assert_close(adversarial_BCHW, optimum_BCHW, rtol=0, atol=5e-7)


@pytest.mark.parametrize("num_images", [1, 3, 8])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 10])
def test_pgd_reaches_the_optimum_of_a_linear_model(num_images: int, num_steps: int) -> None:
    weights_CHW, model = linear_model()
    inputs_BCHW, labels_B = inner_images(num_images)
    adversarial_BCHW = attack(model, inputs_BCHW, labels_B, epsilon=0.25, num_steps=num_steps)
    assert_is_linear_optimum(adversarial_BCHW, inputs_BCHW, labels_B, weights_CHW, 0.25)


@pytest.mark.parametrize("num_images", [1, 3, 8])
@pytest.mark.parametrize("m_train", [1, 4, 16])
def test_pgd_reaches_the_optimum_of_the_smoothed_linear_model(num_images: int, m_train: int) -> None:
    """Every draw's gradient is a positive multiple of the same vector, so noise moves no optimum."""
    weights_CHW, model = linear_model(scale=5.0)
    inputs_BCHW, labels_B = inner_images(num_images)
    adversarial_BCHW = attack(model, inputs_BCHW, labels_B, epsilon=0.25, m_train=m_train, sigma=0.5)
    assert_is_linear_optimum(adversarial_BCHW, inputs_BCHW, labels_B, weights_CHW, 0.25)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e-10, 10.0])
def test_size_of_the_gradient_does_not_matter(scale: float) -> None:
    weights_CHW, model = linear_model(scale=scale)
    inputs_BCHW, labels_B = inner_images(3)
    adversarial_BCHW = attack(model, inputs_BCHW, labels_B, epsilon=0.25, m_train=2)
    assert_is_linear_optimum(adversarial_BCHW, inputs_BCHW, labels_B, weights_CHW, 0.25)


def test_steps_are_twice_epsilon_over_their_number() -> None:
    """There, back, there again and to the side: the end lies inside the ball, where nothing is projected."""
    weights = iter([torch.tensor(w) for w in ([1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [0.0, 1.0])])

    def turning_model(inputs_BCHW: Tensor) -> Tensor:
        score_B = inputs_BCHW.flatten(1) @ next(weights)
        return torch.stack([-score_B, score_B], dim=1)

    inputs_BCHW = torch.full((1, 1, 1, 2), 0.5)
    adversarial_BCHW = attack(turning_model, inputs_BCHW, torch.tensor([0]), epsilon=0.2, num_steps=4)
    # 1e-6: rounding in float32.
    assert adversarial_BCHW.flatten().tolist() == pytest.approx([0.6, 0.6], abs=1e-6)


def test_pixels_stop_at_the_box() -> None:
    def brighter_is_worse(inputs_BCHW: Tensor) -> Tensor:
        score_B = inputs_BCHW.flatten(1).sum(dim=1)
        return torch.stack([-score_B, score_B], dim=1)

    inputs_BCHW = torch.tensor([1.0, 0.5]).reshape(1, 1, 1, 2)
    adversarial_BCHW = attack(brighter_is_worse, inputs_BCHW, torch.tensor([0]), epsilon=0.3, num_steps=10)
    assert adversarial_BCHW.flatten().tolist() == pytest.approx([1.0, 0.8], abs=1e-6)


def random_model(shape: tuple[int, int, int], num_classes: int, scale: float, seed: int) -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(shape[0], 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * shape[1] * shape[2], num_classes)
    )
    for parameter in model.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=seeded(seed))
    return model.eval().requires_grad_(False)


def plain_pgd(
    model: nn.Module, input_CHW: Tensor, label: int, noise_MCHW: Tensor, epsilon: float, num_steps: int
) -> Tensor:
    """Pseudocode 1 for one image, in the order of the paper: step, box, ball."""
    point_CHW = input_CHW.clone()
    for _ in range(num_steps):
        point_CHW.requires_grad_(True)
        loss = -model(point_CHW + noise_MCHW).softmax(dim=1)[:, label].mean().log()
        (gradient_CHW,) = torch.autograd.grad(loss, point_CHW)
        point_CHW = point_CHW.detach() + 2 * epsilon / num_steps * gradient_CHW / gradient_CHW.norm()
        delta_CHW = point_CHW.clamp(0, 1) - input_CHW
        point_CHW = input_CHW + delta_CHW * min(1.0, epsilon / float(delta_CHW.norm()))
    return point_CHW


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 2.0])
def test_pgd_equals_a_plain_loop_in_double_precision(epsilon: float) -> None:
    model, double_model = random_model(SHAPE, 4, 1.0, 0), random_model(SHAPE, 4, 1.0, 0).double()
    inputs_BCHW, labels_B = torch.rand((4, *SHAPE), generator=seeded(1)), torch.arange(4)
    noise_MBCHW = 0.25 * torch.randn((3, *inputs_BCHW.shape), generator=seeded(2))
    adversarial_BCHW = smoothadv_pgd(
        model, inputs_BCHW, labels_B, noise_MBCHW, epsilon=epsilon, num_steps=5, generator=seeded(0)
    )
    expected_BCHW = torch.stack(
        [
            plain_pgd(double_model, inputs_BCHW[row].double(), row, noise_MBCHW[:, row].double(), epsilon, 5)
            for row in range(4)
        ]
    )
    # 1e-4: rounding in float32 over five steps; a step is no shorter than 0.04.
    torch.testing.assert_close(adversarial_BCHW.double(), expected_BCHW, rtol=0, atol=1e-4)


def assert_in_ball_and_box(adversarial_BCHW: Tensor, inputs_BCHW: Tensor, epsilon: float) -> None:
    assert adversarial_BCHW.shape == inputs_BCHW.shape
    assert not adversarial_BCHW.requires_grad
    assert torch.all((adversarial_BCHW >= 0) & (adversarial_BCHW <= 1))  # false for nan
    assert norms(adversarial_BCHW.double() - inputs_BCHW.double()).max() <= epsilon


@quick
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    num_images=st.integers(1, 3),
    m_train=st.integers(1, 3),
    num_steps=st.integers(0, 4),
    epsilon=st.sampled_from([0.0, 1e-6, 1e-4, 0.01, 0.25, 1.0, 2.0]) | st.floats(1e-6, 4),
    scale=st.sampled_from([0.0, 1e-30, 0.1, 1.0, 100.0]),
    corners=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_result_is_in_the_ball_and_in_the_box(
    shape: tuple[int, int, int],
    num_images: int,
    m_train: int,
    num_steps: int,
    epsilon: float,
    scale: float,
    corners: bool,
    seed: int,
) -> None:
    model = random_model(shape, 4, scale, seed)
    inputs_BCHW = torch.rand((num_images, *shape), generator=seeded(seed))
    inputs_BCHW = inputs_BCHW.round() if corners else inputs_BCHW
    labels_B = torch.arange(num_images)
    adversarial_BCHW = attack(
        model, inputs_BCHW, labels_B, epsilon=epsilon, num_steps=num_steps, m_train=m_train, sigma=0.25, seed=seed
    )
    assert_in_ball_and_box(adversarial_BCHW, inputs_BCHW, epsilon)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (3, 32, 32), (3, 224, 224)])
@pytest.mark.parametrize("epsilon", [1e-4, 0.01, 0.25, 1.0, 2.0])
def test_rounding_never_leaves_the_ball(shape: tuple[int, int, int], epsilon: float) -> None:
    """Equal pixels and an even step round all one way: the worst case of x + delta in float32."""

    def brighter_is_worse(inputs_BCHW: Tensor) -> Tensor:
        score_B = inputs_BCHW.flatten(1).mean(dim=1)
        return torch.stack([-score_B, score_B], dim=1)

    levels_B = torch.linspace(0.3, 0.7, 4)
    inputs_BCHW = levels_B[:, None, None, None].expand(-1, *shape).contiguous()
    adversarial_BCHW = attack(brighter_is_worse, inputs_BCHW, torch.tensor([0, 1, 0, 1]), epsilon=epsilon)
    assert_in_ball_and_box(adversarial_BCHW, inputs_BCHW, epsilon)


def constant_model(inputs_BCHW: Tensor) -> Tensor:
    return 0.0 * inputs_BCHW.flatten(1)[:, :1] + torch.tensor([1.0, 0.0])


def test_vanishing_gradient_takes_a_random_direction_within_the_ball() -> None:
    inputs_BCHW, labels_B = inner_images(3)
    adversarial_BCHW = attack(constant_model, inputs_BCHW, labels_B, epsilon=0.25)
    assert_in_ball_and_box(adversarial_BCHW, inputs_BCHW, 0.25)
    # 1e-5: what projection gives away, and rounding of pixels.
    torch.testing.assert_close(
        norms(adversarial_BCHW - inputs_BCHW), torch.full((3,), 0.25, dtype=torch.float64), rtol=1e-5, atol=0
    )


def test_result_is_a_function_of_the_generators_state() -> None:
    inputs_BCHW, labels_B = inner_images(3)
    first, again, other = (attack(constant_model, inputs_BCHW, labels_B, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_generator_is_not_consulted_where_there_is_a_gradient() -> None:
    model = random_model(SHAPE, 4, 1.0, 0)
    inputs_BCHW, labels_B = inner_images(3)
    first, other = (attack(model, inputs_BCHW, labels_B, m_train=2, sigma=0.25, seed=seed) for seed in (5, 6))
    assert torch.equal(first, other)


@pytest.mark.parametrize(("epsilon", "num_steps"), [(0.0, 3), (0.25, 0), (0.0, 0)])
def test_no_radius_or_no_steps_return_a_copy_of_the_inputs(epsilon: float, num_steps: int) -> None:
    _, model = linear_model()
    inputs_BCHW, labels_B = inner_images(3)
    adversarial_BCHW = attack(model, inputs_BCHW, labels_B, epsilon=epsilon, num_steps=num_steps)
    assert torch.equal(adversarial_BCHW, inputs_BCHW)
    assert adversarial_BCHW.data_ptr() != inputs_BCHW.data_ptr()


@pytest.mark.parametrize("requires_grad", [False, True])
def test_attack_leaves_parameters_and_inputs_alone(requires_grad: bool) -> None:
    model = random_model(SHAPE, 4, 1.0, 0).requires_grad_(requires_grad)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    inputs_BCHW, labels_B = inner_images(3)
    original_BCHW = inputs_BCHW.clone()
    attack(model, inputs_BCHW, labels_B, m_train=2, sigma=0.25)
    assert all(torch.equal(new, old) for new, old in zip(model.parameters(), before, strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(inputs_BCHW, original_BCHW)
    assert inputs_BCHW.grad is None
    assert not inputs_BCHW.requires_grad


def test_attack_raises_the_smoothed_loss() -> None:
    model = random_model(SHAPE, 4, 0.3, 0)
    inputs_BCHW, labels_B = inner_images(4)
    noise_MBCHW = 0.25 * torch.randn((4, *inputs_BCHW.shape), generator=seeded(9))

    def loss(points_BCHW: Tensor) -> Tensor:
        logits_MBK = torch.stack([model(points_BCHW + noise_BCHW) for noise_BCHW in noise_MBCHW])
        return smoothed_cross_entropy(logits_MBK, labels_B)

    adversarial_BCHW = smoothadv_pgd(
        model, inputs_BCHW, labels_B, noise_MBCHW, epsilon=0.5, num_steps=5, generator=seeded(0)
    )
    random_BCHW = inputs_BCHW + project_l2(torch.randn(inputs_BCHW.shape, generator=seeded(8)), 0.5)
    assert torch.all(loss(adversarial_BCHW) > loss(inputs_BCHW))
    assert torch.all(loss(adversarial_BCHW) > loss(random_BCHW))


def test_an_image_does_not_feel_the_rest_of_its_batch() -> None:
    model = random_model(SHAPE, 4, 0.3, 0)
    inputs_BCHW, labels_B = inner_images(4)
    together_BCHW = attack(model, inputs_BCHW, labels_B)
    alone_BCHW = torch.cat([attack(model, inputs_BCHW[[row]], labels_B[[row]]) for row in range(4)])
    # 1e-5: kernels round differently for batches of different shapes.
    torch.testing.assert_close(together_BCHW, alone_BCHW, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1.0, 1e30])
def test_unit_direction_has_length_one_at_every_scale(scale: float) -> None:
    vectors_BCHW = scale * torch.randn((3, *SHAPE), generator=seeded(0))
    direction_BCHW = unit_direction(vectors_BCHW, torch.zeros_like(vectors_BCHW))
    # 1e-6: rounding in float32.
    torch.testing.assert_close(norms(direction_BCHW), torch.ones(3, dtype=torch.float64), rtol=1e-6, atol=0)


def test_fallback_serves_only_the_images_that_need_it() -> None:
    vectors_BCHW, fallback_BCHW = (torch.randn((3, *SHAPE), generator=seeded(seed)) for seed in (0, 1))
    vectors_BCHW[1] = 0
    direction_BCHW = unit_direction(vectors_BCHW, fallback_BCHW)
    expected_BCHW = torch.stack([vectors_BCHW[0], fallback_BCHW[1], vectors_BCHW[2]])
    expected_BCHW /= expected_BCHW.flatten(1).norm(dim=1)[:, None, None, None]
    torch.testing.assert_close(direction_BCHW, expected_BCHW)


@quick
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40)),
    epsilon=st.floats(1e-6, 10),
    length=st.floats(0, 100),
    seed=st.integers(0, 1000),
)
def test_projection_shortens_what_is_too_long_and_nothing_else(
    shape: tuple[int, int, int], epsilon: float, length: float, seed: int
) -> None:
    direction_BCHW = unit_direction(torch.randn((1, *shape), generator=seeded(seed)), torch.ones((1, *shape)))
    delta_BCHW = length * direction_BCHW
    projected_BCHW = project_l2(delta_BCHW, epsilon)
    assert norms(projected_BCHW).item() <= epsilon
    if length < 0.999 * epsilon:
        assert torch.equal(projected_BCHW, delta_BCHW)
    if length > 1.001 * epsilon:
        # 1e-5: what projection gives away, and rounding in float32.
        torch.testing.assert_close(projected_BCHW, epsilon * direction_BCHW, rtol=1e-5, atol=1e-5 * epsilon)


def test_projection_holds_for_large_images() -> None:
    delta_BCHW = torch.full((2, 3, 224, 224), 0.01)
    assert norms(project_l2(delta_BCHW, 1.0)).max() <= 1.0
