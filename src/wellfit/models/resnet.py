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

from wellfit.errors import UserError
from wellfit.models.head import scale_classifier
from wellfit.models.init import initialise
from wellfit.models.layers.choice import LayerChoice
from wellfit.models.layers.stochastic_depth import drop_rates, skipping

USUAL = LayerChoice()


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


def projection(inputs: int, outputs: int, stride: int, layers: LayerChoice = USUAL) -> nn.Module:
    """Shortcut by a 1×1 convolution with normalisation (option B of the paper)."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=layers.bias), layers.norm(outputs))


Shortcut = Callable[[int, int, int], nn.Module] | None


class Block(nn.Module):
    """What both blocks share: act(shortcut(x) + residual(x)), or act(residual(x)) in a plain net.

    skip: probability that the residual branch is left out in training (stochastic depth). With maxout nothing
    follows the sum, which has one piece; PReLU learns one slope a block.
    """

    downsample: nn.Module | None
    relu: nn.Module

    def __init__(self, shortcut: bool, layers: LayerChoice, skip: float) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.act_after_sum = layers.pieces == 1 or not shortcut
        self.branch = skipping(skip)

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def last_layers(self) -> tuple[nn.Conv2d, nn.Module]:
        """The residual branch's last convolution and the normalisation behind it."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.branch(self.residual(x))
        if self.shortcut:
            y = y + (x if self.downsample is None else self.downsample(x))
        return self.relu(y) if self.act_after_sum else y


class BasicBlock(Block):
    """Two 3×3 convolutions: N×inputs×H×W → N×width×H/stride×W/stride."""

    expansion = 1

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int,
        shortcut: Shortcut,
        layers: LayerChoice = USUAL,
        skip: float = 0.0,
    ) -> None:
        super().__init__(shortcut is not None, layers, skip)
        wide = layers.pieces * width
        last = width if shortcut else wide
        self.conv1 = nn.Conv2d(inputs, wide, 3, stride, padding=1, bias=layers.bias)
        self.bn1 = layers.norm(wide)
        self.relu = layers.act()
        self.conv2 = nn.Conv2d(width, last, 3, padding=1, bias=layers.bias)
        self.bn2 = layers.norm(last)
        changes = stride != 1 or inputs != width
        self.downsample = shortcut(inputs, width, stride) if shortcut and changes else None

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))

    def last_layers(self) -> tuple[nn.Conv2d, nn.Module]:
        return self.conv2, self.bn2


class Bottleneck(Block):
    """1×1, 3×3 and 1×1 convolutions, the last to 4·width channels: used from 50 layers on."""

    expansion = 4

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int,
        shortcut: Shortcut,
        layers: LayerChoice = USUAL,
        skip: float = 0.0,
    ) -> None:
        super().__init__(shortcut is not None, layers, skip)
        outputs, wide = width * self.expansion, layers.pieces * width
        last = outputs if shortcut else layers.pieces * outputs
        self.conv1 = nn.Conv2d(inputs, wide, 1, bias=layers.bias)
        self.bn1 = layers.norm(wide)
        self.conv2 = nn.Conv2d(width, wide, 3, stride, padding=1, bias=layers.bias)
        self.bn2 = layers.norm(wide)
        self.conv3 = nn.Conv2d(width, last, 1, bias=layers.bias)
        self.bn3 = layers.norm(last)
        self.relu = layers.act()
        changes = stride != 1 or inputs != outputs
        self.downsample = shortcut(inputs, outputs, stride) if shortcut and changes else None

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.bn3(self.conv3(self.relu(self.bn2(self.conv2(x)))))

    def last_layers(self) -> tuple[nn.Conv2d, nn.Module]:
        return self.conv3, self.bn3


def _stage(
    block: type[BasicBlock] | type[Bottleneck],
    inputs: int,
    width: int,
    stride: int,
    shortcut: Shortcut,
    layers: LayerChoice,
    skips: Sequence[float],
) -> nn.Sequential:
    """As many blocks as there are `skips`, the probabilities that their residual branches are left out."""
    outputs = width * block.expansion
    first = block(inputs, width, stride, shortcut, layers, skips[0])
    return nn.Sequential(first, *(block(outputs, width, 1, shortcut, layers, skip) for skip in skips[1:]))


def _skips(layers: LayerChoice, shortcut: bool, depths: Sequence[int]) -> list[list[float]]:
    if layers.stochastic_depth and not shortcut:
        raise UserError(
            f"stochastic depth leaves out residual branches, got {layers.stochastic_depth} for a plain net, where a "
            "block left out would cut the net in two; use a resnet, or stochastic_depth = 0"
        )
    rates = iter(drop_rates(layers.stochastic_depth, sum(depths)))
    return [[next(rates) for _ in range(depth)] for depth in depths]


class ResNet(nn.Module):
    """N×channels×H×W → N×classes in four stages of 64, 128, 256 and 512 filters (×4 with bottlenecks).

    The stem is a 7×7 convolution of stride 2 and a 3×3 max pooling of stride 2; with `small_stem` it is one
    3×3 convolution of stride 1, so that images of up to about 64 pixels keep their resolution. Dropout stands
    before the classifier.
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
        layers: LayerChoice = USUAL,
    ) -> None:
        super().__init__()
        way = partial(projection, layers=layers) if shortcut else None
        stem, skips = 64 * layers.pieces, _skips(layers, shortcut, depths)
        if small_stem:
            self.conv1 = nn.Conv2d(channels, stem, 3, padding=1, bias=layers.bias)
        else:
            self.conv1 = nn.Conv2d(channels, stem, 7, 2, padding=3, bias=layers.bias)
        self.bn1 = layers.norm(stem)
        self.relu = layers.act()
        self.maxpool = nn.Identity() if small_stem else nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = _stage(block, 64, 64, 1, way, layers, skips[0])
        self.layer2 = _stage(block, 64 * block.expansion, 128, 2, way, layers, skips[1])
        self.layer3 = _stage(block, 128 * block.expansion, 256, 2, way, layers, skips[2])
        self.layer4 = _stage(block, 256 * block.expansion, 512, 2, way, layers, skips[3])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = layers.drop()
        self.fc = nn.Linear(512 * block.expansion, classes)
        layers.connect(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.dropout(self.avgpool(x).flatten(1)))


class CifarResNet(nn.Module):
    """N×channels×H×W → N×classes, 6n+2 layers in three stages of 16, 32 and 64 filters, no pooling in the stem."""

    def __init__(
        self, depth: int, classes: int, *, channels: int = 3, shortcut: bool = True, layers: LayerChoice = USUAL
    ) -> None:
        super().__init__()
        way = PadShortcut if shortcut else None
        stem, skips = 16 * layers.pieces, _skips(layers, shortcut, [(depth - 2) // 6] * 3)
        self.conv1 = nn.Conv2d(channels, stem, 3, padding=1, bias=layers.bias)
        self.bn1 = layers.norm(stem)
        self.relu = layers.act()
        self.layer1 = _stage(BasicBlock, 16, 16, 1, way, layers, skips[0])
        self.layer2 = _stage(BasicBlock, 16, 32, 2, way, layers, skips[1])
        self.layer3 = _stage(BasicBlock, 32, 64, 2, way, layers, skips[2])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = layers.drop()
        self.linear = nn.Linear(64, classes)
        layers.connect(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.dropout(self.avgpool(x).flatten(1)))


def zero_last_norms(net: nn.Module) -> None:
    """Zero the scale of each residual block's last normalisation: every block starts as the identity.

    Goyal et al. 2017, "Accurate, Large Minibatch SGD". Where the normalisation has no scale, or there is none, the
    last convolution is zeroed instead. Plain blocks are left alone: they would output zero.
    """
    for block in net.modules():
        if isinstance(block, Block) and block.shortcut:
            convolution, norm = block.last_layers()
            scale = getattr(norm, "weight", None)
            nn.init.zeros_(convolution.weight if scale is None else scale)


def _finish(
    net: nn.Module, seed: int, layers: LayerChoice, initialisation: str | None, relu_bias: float, zero_init: bool
) -> None:
    initialise(net, seed, initialisation or layers.initialisation, relu_bias=relu_bias)
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
    activation: str = "relu",
    normalization: str = "batch",
    dropout: float = 0.0,
    dropout_form: str = "inverted",
    drop_connect: float = 0.0,
    stochastic_depth: float = 0.0,
    zero_init: bool = True,
    initialisation: str | None = None,
    relu_bias: float = 0.0,
) -> ResNet:
    """A photograph net of 18, 34, 50, 101 or 152 layers; `small_stem=None` means: for images up to 64 pixels.

    activation to stochastic_depth: as in LayerChoice. initialisation None: the rule that suits the activation.
    """
    block, depths = DEPTHS[depth]
    small = image_size <= SMALL_IMAGE if small_stem is None else small_stem
    layers = LayerChoice(activation, normalization, dropout, dropout_form, drop_connect, stochastic_depth)
    net = ResNet(block, depths, classes, channels=channels, small_stem=small, shortcut=shortcut, layers=layers)
    _finish(net, seed, layers, initialisation, relu_bias, zero_init)
    return net


def build_cifar_resnet(
    depth: int,
    shortcut: bool,
    classes: int,
    *,
    image_size: int,
    seed: int,
    channels: int = 3,
    activation: str = "relu",
    normalization: str = "batch",
    dropout: float = 0.0,
    dropout_form: str = "inverted",
    drop_connect: float = 0.0,
    stochastic_depth: float = 0.0,
    zero_init: bool = True,
    initialisation: str | None = None,
    relu_bias: float = 0.0,
) -> CifarResNet:
    """A CIFAR net of 6n+2 layers; `image_size` is free; the other options as for `build_resnet`."""
    layers = LayerChoice(activation, normalization, dropout, dropout_form, drop_connect, stochastic_depth)
    net = CifarResNet(depth, classes, channels=channels, shortcut=shortcut, layers=layers)
    _finish(net, seed, layers, initialisation, relu_bias, zero_init)
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
    **{f"plain{depth}": partial(build_resnet, depth, False) for depth in DEPTHS},
}
CIFAR_NETS: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{depth}": partial(build_cifar_resnet, depth, True) for depth in (20, 32, 44, 56, 110)},
    **{f"plain{depth}": partial(build_cifar_resnet, depth, False) for depth in (20, 56)},
}
