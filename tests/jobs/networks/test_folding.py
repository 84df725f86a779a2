"""Folding: the same function as the classifier in evaluation mode, kept up to date, nothing else touched."""

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from benchmarks.sweep import ChannelsFirst
from jobs.datasets import dataset_info
from jobs.errors import ConfigError
from jobs.networks.classifier import Classifier, Normalize, build_classifier
from jobs.networks.folding import FoldedClassifier
from jobs.networks.inference import for_inference

CPU = torch.device("cpu")


def small_shape(dataset: str) -> tuple[int, ...]:
    """That of its images; ImageNet's are cut down, which a ResNet takes and a CPU is glad of."""
    channels, height, width = dataset_info(dataset).image_shape
    return channels, min(height, 64), min(width, 64)


def lived_in(architecture: str, dataset: str) -> Classifier:
    """A classifier whose statistics and affine parameters are not those of a fresh one."""
    torch.manual_seed(1)
    classifier = build_classifier(architecture, dataset_info(dataset))
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    shake(classifier, dataset)
    return classifier.eval()


def shake(classifier: Classifier, dataset: str) -> None:
    """Other statistics and weights, as an optimizer step would leave them."""
    classifier.train()
    with torch.no_grad():
        for _ in range(3):
            classifier(torch.rand(8, *small_shape(dataset)))
        for parameter in classifier.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    classifier.eval()


ARCHITECTURES = pytest.mark.parametrize(
    ("architecture", "dataset", "num_folded"),
    [
        ("digits_cnn", "digits", 2),
        ("cifar_resnet20", "cifar10", 21),
        ("resnet50", "imagenet", 53),
        ("linear", "digits", 0),
    ],
)


def assert_same_function(found: nn.Module, classifier: Classifier, dataset: str) -> None:
    inputs_BCHW = torch.rand(3, *small_shape(dataset)) * 2 - 0.5  # noise leaves [0, 1]
    with torch.no_grad():
        expected_BK, found_BK = classifier(inputs_BCHW), found(inputs_BCHW)
    # float32 through up to 53 layers.
    torch.testing.assert_close(found_BK, expected_BK, rtol=1e-4, atol=1e-4 * float(expected_BK.abs().max()))


@ARCHITECTURES
def test_folded_is_the_same_function(architecture: str, dataset: str, num_folded: int) -> None:
    classifier = lived_in(architecture, dataset)
    folded = FoldedClassifier(classifier)
    assert len(folded.pairs) == num_folded
    assert sum(isinstance(module, nn.BatchNorm2d) for module in folded.network.modules()) == 0 or num_folded == 0
    assert_same_function(folded, classifier, dataset)
    assert_same_function(for_inference(classifier, "float32", CPU), classifier, dataset)


@ARCHITECTURES
def test_refreshed_follows_its_source(architecture: str, dataset: str, num_folded: int) -> None:
    classifier = lived_in(architecture, dataset)
    folded = FoldedClassifier(classifier)
    shake(classifier, dataset)
    folded.refresh()
    assert_same_function(folded, classifier, dataset)


def test_the_source_is_left_alone() -> None:
    classifier = lived_in("cifar_resnet20", "cifar10").train()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    folded = FoldedClassifier(classifier)
    folded(torch.rand(2, 3, 32, 32))
    assert classifier.training
    assert all(parameter.requires_grad for parameter in classifier.parameters())
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())


@pytest.mark.parametrize("padding", [0, 1])
def test_borders_are_right_where_the_first_convolution_pads(padding: int) -> None:
    """A padded zero stands for the mean: a bias for the mean would be wrong at the border."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=padding), nn.BatchNorm2d(4), nn.Flatten())
    classifier = Classifier(Normalize((0.4, 0.5, 0.6), (0.2, 0.1, 0.3)), network).eval()
    inputs_BCHW = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(FoldedClassifier(classifier)(inputs_BCHW), classifier(inputs_BCHW), rtol=1e-5, atol=1e-5)


class Shared(nn.Module):
    """A convolution used twice, once with a normalisation behind it: not to be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, inputs_BCHW: torch.Tensor) -> torch.Tensor:
        outputs_BCHW: torch.Tensor = self.norm(self.conv(inputs_BCHW)) + self.conv(inputs_BCHW)
        return outputs_BCHW.mean(dim=(2, 3))


class Moody(nn.Module):
    """A network whose course depends on its input, which tracing cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, inputs_BCHW: torch.Tensor) -> torch.Tensor:
        if inputs_BCHW.mean() > 0:
            inputs_BCHW = self.norm(self.conv(inputs_BCHW))
        return inputs_BCHW.mean(dim=(2, 3))


@pytest.mark.parametrize("network", [Shared(), Moody()], ids=["shared", "moody"])
def test_what_cannot_be_folded_runs_as_it_is(network: nn.Module) -> None:
    classifier = Classifier(Normalize((0.4, 0.5, 0.6), (0.2, 0.1, 0.3)), network).eval()
    inputs_BCHW = torch.rand(2, 3, 4, 4)
    folded = FoldedClassifier(classifier)
    assert len(folded.pairs) == 0
    torch.testing.assert_close(folded(inputs_BCHW), classifier(inputs_BCHW))


class Scaled(nn.Module):
    """A network with a parameter of its own beside its modules, and one that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.ones(3))
        self.scale = nn.Parameter(torch.ones(3, 1, 1))
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, inputs_BCHW: torch.Tensor) -> torch.Tensor:
        outputs_BCHW: torch.Tensor = self.norm(self.conv(inputs_BCHW)) * self.scale
        return outputs_BCHW.mean(dim=(2, 3))


@pytest.mark.parametrize("network", [Scaled(), nn.Sequential(Scaled())], ids=["alone", "inside"])
def test_parameters_beside_modules_are_refreshed_too(network: nn.Module) -> None:
    classifier = Classifier(Normalize((0.4, 0.5, 0.6), (0.2, 0.1, 0.3)), network).eval()
    folded = FoldedClassifier(classifier)
    assert len(folded.pairs) == 1
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.rand_like(parameter))
    folded.refresh()
    inputs_BCHW = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(folded(inputs_BCHW), classifier(inputs_BCHW))


def test_the_benchmark_s_other_layout_is_the_same_function() -> None:
    classifier = lived_in("cifar_resnet20", "cifar10")
    assert_same_function(ChannelsFirst(FoldedClassifier(classifier)), classifier, "cifar10")


@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 0.05), ("float16", 0.01)])
def test_lower_precision_is_near(precision: str, tolerance: float) -> None:
    classifier = lived_in("digits_cnn", "digits")
    inputs_BCHW = torch.rand(8, 1, 8, 8)
    with torch.no_grad():
        expected_BK = classifier(inputs_BCHW)
        found_BK = for_inference(classifier, precision, CPU)(inputs_BCHW).float()  # type: ignore[arg-type]
    error = (found_BK - expected_BK).abs().max() / expected_BK.abs().max()
    assert 0 < error < tolerance


def test_tf32_needs_a_gpu() -> None:
    with pytest.raises(ConfigError, match=r"certify.precision: tf32 needs a GPU, this is a cpu"):
        for_inference(lived_in("digits_cnn", "digits"), "tf32", CPU)


class AsksForTraining(nn.Module):
    """A network of which an evaluation is another course than a training, in three ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.first, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8 * 64, 10)
        self.depth = StochasticDepth(0.5, "row")

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.first(inputs)
        if self.way == "functional dropout":
            hidden = nn.functional.dropout(hidden, 0.5, self.training)
        elif self.way == "stochastic depth":
            hidden = inputs + self.depth(hidden)
        elif self.training:
            hidden = 2 * hidden
        logits: torch.Tensor = self.last(hidden.relu().flatten(1))
        return logits


@pytest.mark.parametrize("way", ["functional dropout", "stochastic depth", "if self.training"])
def test_a_copy_made_in_training_is_the_network_in_evaluation(way: str) -> None:
    torch.manual_seed(0)
    classifier = Classifier(Normalize((0.5,), (0.5,)), AsksForTraining(way)).train()
    folded, inputs = FoldedClassifier(classifier), torch.rand(16, 1, 8, 8)
    found = [folded(inputs) for _ in range(2)]
    assert classifier.training
    assert torch.equal(found[0], found[1])
    torch.testing.assert_close(found[0], classifier.eval()(inputs), rtol=1e-5, atol=1e-5)


class WithConstant(nn.Module):
    """A network that makes a tensor on its way, which tracing keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(64, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(inputs.flatten(1) * torch.arange(64.0))
        return logits


def test_constants_of_a_network_stay_when_its_weights_are_taken_over() -> None:
    classifier = Classifier(Normalize((0.5,), (0.5,)), WithConstant())
    folded, inputs = FoldedClassifier(classifier), torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.mul_(2.0)
    folded.refresh()
    torch.testing.assert_close(folded(inputs), classifier.eval()(inputs))
