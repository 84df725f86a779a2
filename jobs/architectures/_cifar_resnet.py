"""Residual networks for 32 x 32 images, of depth 6 n + 2: three stages of n blocks.

Names of layers are those of the published checkpoints, so that these load.

Source: He et al. 2016, section 4.2, with projection shortcuts (option B), as Cohen et al. 2019 and
Salman et al. 2019 use them.
"""

from torch import Tensor, nn

from jobs.datasets import DatasetInfo

_STAGES = ((16, 1), (32, 2), (64, 2))  # channels and the stride of the first block


class CifarResNet(nn.Module):
    """The network: inputs_BCHW, normalised, to logits_BK."""

    def __init__(self, depth: int, info: DatasetInfo) -> None:
        super().__init__()
        num_blocks, rest = divmod(depth - 2, 6)
        assert rest == 0, f"depth must be 6 n + 2, got {depth}"
        self.conv1 = _convolution(info.image_shape[0], _STAGES[0][0])
        self.bn1 = nn.BatchNorm2d(_STAGES[0][0])
        channels = _STAGES[0][0]
        for stage_nr, (out_channels, stride) in enumerate(_STAGES, start=1):
            blocks = [_Block(channels, out_channels, stride)]
            blocks += [_Block(out_channels, out_channels, 1) for _ in range(num_blocks - 1)]
            self.add_module(f"layer{stage_nr}", nn.Sequential(*blocks))
            channels = out_channels
        self.fc = nn.Linear(channels, info.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, inputs_BCHW: Tensor) -> Tensor:
        features = self.bn1(self.conv1(inputs_BCHW)).relu_()
        for stage_nr in range(1, len(_STAGES) + 1):
            features = self.get_submodule(f"layer{stage_nr}")(features)
        logits: Tensor = self.fc(features.mean(dim=(2, 3)))
        return logits


class _Block(nn.Module):
    """Two convolutions and a shortcut around them."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _convolution(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = _convolution(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            projection = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, inputs: Tensor) -> Tensor:
        shortcut = inputs if self.downsample is None else self.downsample(inputs)
        features: Tensor = self.bn2(self.conv2(self.bn1(self.conv1(inputs)).relu_()))
        return features.add_(shortcut).relu_()


def _convolution(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
