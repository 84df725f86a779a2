import pytest
import torch

from jobs.architectures import architecture_names
from jobs.datasets import dataset_info
from jobs.errors import ConfigError
from jobs.networks.classifier import build_classifier

DATASETS = {"digits_cnn": "digits", "resnet50": "imagenet"}


@pytest.mark.parametrize(
    ("architecture", "num_parameters"),
    # 0.27, 0.85 and 1.7 million in He et al., table 6, with 2,752 for the two projections; torchvision's own count.
    [
        ("cifar_resnet20", 269_722 + 2_752),
        ("cifar_resnet56", 853_018 + 2_752),
        ("cifar_resnet110", 1_727_962 + 2_752),
        ("resnet50", 25_557_032),
    ],
)
def test_sizes_are_those_of_the_papers(architecture: str, num_parameters: int) -> None:
    network = build_classifier(architecture, dataset_info(DATASETS.get(architecture, "cifar10"))).network
    assert sum(parameter.numel() for parameter in network.parameters()) == num_parameters


def test_models_of_torchvision_take_the_classes_of_a_dataset() -> None:
    info = dataset_info("cifar10")
    classifier = build_classifier("torchvision:resnet18", info, options={"zero_init_residual": True}).eval()
    assert classifier(torch.rand(2, *info.image_shape)).shape == (2, 10)
    with pytest.raises(ConfigError, match=r"torchvision:resnet18: TypeError: .* unexpected keyword argument 'depth'"):
        build_classifier("torchvision:resnet18", info, options={"depth": 3})


def test_resnet50_refuses_images_of_one_channel() -> None:
    with pytest.raises(ConfigError, match="resnet50 takes images of 3 channels, and those of digits have 1"):
        build_classifier("resnet50", dataset_info("digits"))


def test_resnet110_has_the_published_names() -> None:
    names = build_classifier("cifar_resnet110", dataset_info("cifar10")).network.state_dict().keys()
    # 109 convolutions and 2 projections, each with five entries of its normalisation; the last layer.
    assert len(names) == 6 * (109 + 2) + 2
    for name in (
        "conv1.weight",
        "bn1.running_var",
        "layer1.17.conv2.weight",
        "layer2.0.downsample.0.weight",
        "layer2.0.downsample.1.num_batches_tracked",
        "layer3.17.bn2.bias",
        "fc.weight",
        "fc.bias",
    ):
        assert name in names
    assert not any(name.startswith("layer1.0.downsample") for name in names)


@pytest.mark.parametrize("architecture", [name for name in architecture_names() if name != "resnet50"])
def test_a_row_does_not_depend_on_its_neighbours(architecture: str) -> None:
    info = dataset_info(DATASETS.get(architecture, "cifar10"))
    torch.manual_seed(0)
    classifier = build_classifier(architecture, info).eval().double()
    inputs = torch.rand(3, *info.image_shape).double()
    together = classifier(inputs)
    assert together.shape == (3, info.num_classes)
    alone = torch.cat([classifier(row.unsqueeze(0)) for row in inputs])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-6)
