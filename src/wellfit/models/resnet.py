"""Residual nets for photographs (18 to 152 layers) and for CIFAR (20 to 110), and plain nets of the same depths.

He, Zhang, Ren, Sun 2015, "Deep Residual Learning for Image Recognition"; SPEC N9. The photograph nets carry
torchvision's state-dict keys (stride on the 3×3 convolution of a bottleneck), the CIFAR nets those of the
published CIFAR-10 checkpoints (`conv1, bn1, layer1..3, linear`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from wellfit.models.head import scale_classifier
from wellfit.models.init import initialise


class PadShortcut(nn.Module):
    """Identity shortcut without parameters (option A of the paper): N×C×H×W → N×out×⌈H/s⌉×⌈W/s⌉.

    Every `stride`-th pixel is kept and the new channels are zero, half of them on each side.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        before = (outputs - inputs) // 2
        self.padding = (0, 0, 0, 0, before, outputs - inputs - before)
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], self.padding)


def projection(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Shortcut by a 1×1 convolution with batch normalisation (option B of the paper)."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """What both blocks share: relu(shortcut(x) + residual(x)), or relu(residual(x)) in a plain net."""

    downsample: nn.Module | None
    relu: nn.Module

    def __init__(self, shortcut: bool) -> None:
        super().__init__()
        self.shortcut = shortcut

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def last_norm(self) -> nn.BatchNorm2d:
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.residual(x)
        if self.shortcut:
            y = y + (x if self.downsample is None else self.downsample(x))
        return self.relu(y)


Shortcut = Callable[[int, int, int], nn.Module] | None


class BasicBlock(Block):
    """Two 3×3 convolutions: N×inputs×H×W → N×width×H/stride×W/stride."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__(shortcut is not None)
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        changes = stride != 1 or inputs != width
        self.downsample = shortcut(inputs, width, stride) if shortcut and changes else None

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))

    def last_norm(self) -> nn.BatchNorm2d:
        return self.bn2


class Bottleneck(Block):
    """1×1, 3×3 and 1×1 convolutions, the last to 4·width channels: used from 50 layers on."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__(shortcut is not None)
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        changes = stride != 1 or inputs != outputs
        self.downsample = shortcut(inputs, outputs, stride) if shortcut and changes else None

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.bn3(self.conv3(self.relu(self.bn2(self.conv2(x)))))

    def last_norm(self) -> nn.BatchNorm2d:
        return self.bn3


def _stage(
    block: type[BasicBlock] | type[Bottleneck], inputs: int, width: int, depth: int, stride: int, shortcut: Shortcut
) -> nn.Sequential:
    outputs = width * block.expansion
    first = block(inputs, width, stride, shortcut)
    return nn.Sequential(first, *(block(outputs, width, 1, shortcut) for _ in range(depth - 1)))


class ResNet(nn.Module):
    """N×channels×H×W → N×classes in four stages of 64, 128, 256 and 512 filters (×4 with bottlenecks).

    The stem is a 7×7 convolution of stride 2 and a 3×3 max pooling of stride 2; with `small_stem` it is one
    3×3 convolution of stride 1, so that images of up to about 64 pixels keep their resolution.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        classes: int,
        *,
        channels: int = 3,
        small_stem: bool = False,
        shortcut: bool = True,
    ) -> None:
        super().__init__()
        way = projection if shortcut else None
        if small_stem:
            self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(channels, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small_stem else nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = _stage(block, 64, 64, depths[0], 1, way)
        self.layer2 = _stage(block, 64 * block.expansion, 128, depths[1], 2, way)
        self.layer3 = _stage(block, 128 * block.expansion, 256, depths[2], 2, way)
        self.layer4 = _stage(block, 256 * block.expansion, 512, depths[3], 2, way)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * block.expansion, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


class CifarResNet(nn.Module):
    """N×channels×H×W → N×classes, 6n+2 layers in three stages of 16, 32 and 64 filters, no pooling in the stem."""

    def __init__(self, depth: int, classes: int, *, channels: int = 3, shortcut: bool = True) -> None:
        super().__init__()
        way = PadShortcut if shortcut else None
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(BasicBlock, 16, 16, blocks, 1, way)
        self.layer2 = _stage(BasicBlock, 16, 32, blocks, 2, way)
        self.layer3 = _stage(BasicBlock, 32, 64, blocks, 2, way)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.avgpool(x).flatten(1))


def zero_last_norms(net: nn.Module) -> None:
    """Zero the scale of each residual block's last normalisation: every block starts as the identity.

    Goyal et al. 2017, "Accurate, Large Minibatch SGD". Plain blocks are left alone: they would output zero.
    """
    for block in net.modules():
        if isinstance(block, Block) and block.shortcut:
            nn.init.zeros_(block.last_norm().weight)


def _finish(net: nn.Module, seed: int, initialisation: str, relu_bias: float, zero_init: bool) -> None:
    initialise(net, seed, initialisation, relu_bias=relu_bias)
    if zero_init:
        zero_last_norms(net)
    scale_classifier(net, seed)


def build_resnet(
    depth: int,
    shortcut: bool,
    classes: int,
    *,
    image_size: int,
    seed: int,
    channels: int = 3,
    small_stem: bool | None = None,
    zero_init: bool = True,
    initialisation: str = "kaiming",
    relu_bias: float = 0.0,
) -> ResNet:
    """A photograph net of 18, 34, 50, 101 or 152 layers; `small_stem=None` means: for images up to 64 pixels."""
    block, depths = DEPTHS[depth]
    small = image_size <= SMALL_IMAGE if small_stem is None else small_stem
    net = ResNet(block, depths, classes, channels=channels, small_stem=small, shortcut=shortcut)
    _finish(net, seed, initialisation, relu_bias, zero_init)
    return net


def build_cifar_resnet(
    depth: int,
    shortcut: bool,
    classes: int,
    *,
    image_size: int,
    seed: int,
    channels: int = 3,
    zero_init: bool = True,
    initialisation: str = "kaiming",
    relu_bias: float = 0.0,
) -> CifarResNet:
    """A CIFAR net of 6n+2 layers; `image_size` is free."""
    net = CifarResNet(depth, classes, channels=channels, shortcut=shortcut)
    _finish(net, seed, initialisation, relu_bias, zero_init)
    return net


SMALL_IMAGE = 64
DEPTHS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}
PHOTOGRAPH_NETS: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{depth}": partial(build_resnet, depth, True) for depth in DEPTHS},
    **{f"plain{depth}": partial(build_resnet, depth, False) for depth in (18, 34)},
}
CIFAR_NETS: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{depth}": partial(build_cifar_resnet, depth, True) for depth in (20, 32, 44, 56, 110)},
    **{f"plain{depth}": partial(build_cifar_resnet, depth, False) for depth in (20, 56)},
}
