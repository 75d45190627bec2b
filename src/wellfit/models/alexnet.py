"""AlexNet as published in 2012, in one tower and in two, and what has become of its choices.

Krizhevsky, Sutskever, Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks"; SPEC A1, N9.
torchvision's `alexnet` is the later single-tower net with 64 filters in the first layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from wellfit.errors import UserError
from wellfit.models.head import scale_classifier
from wellfit.models.init import initialise
from wellfit.models.layers.choice import LayerChoice

SMALLEST = 67  # pixels: below it the last pooling has no 3×3 window
PAPER = LayerChoice(normalization="local_response", dropout=0.5)


class AlexNet2012(nn.Module):
    """N×channels×S×S → N×classes for one image size S of at least 67 pixels; the paper's is 227.

    227 px gives 96×55×55, pooled 27×27; 256×27×27, pooled 13×13; 384, 384, 256×13×13, pooled 6×6; then 4096, 4096 and
    `classes` units. Normalisation follows the pooling (SPEC A1), where the paper has it in front.
    towers: 1, or 2 as on the paper's two graphics cards: half the filters each, where the second, fourth and fifth
    convolution see their own half only. layers: the paper's are ReLU, local response normalisation, dropout of 0.5.
    """

    def __init__(
        self,
        classes: int,
        *,
        image_size: int = 227,
        channels: int = 3,
        towers: int = 1,
        layers: LayerChoice = PAPER,
    ) -> None:
        super().__init__()
        if image_size < SMALLEST:
            raise UserError(
                f"alexnet2012 takes images of at least {SMALLEST} pixels, got {image_size}; enlarge the images, or "
                "choose a net for small ones such as resnet20 or lenet5"
            )
        if towers not in (1, 2):
            raise UserError(f"alexnet2012 has 1 or 2 towers, got {towers}; 2 is the paper's")
        side = image_size

        def convolution(inputs: int, outputs: int, kernel: int, stride: int, padding: int, groups: int) -> nn.Module:
            nonlocal side
            side = (side + 2 * padding - kernel) // stride + 1
            return nn.Conv2d(inputs, layers.pieces * outputs, kernel, stride, padding, groups=groups)

        def pooling() -> nn.Module:
            nonlocal side
            side = (side - 3) // 2 + 1
            return nn.MaxPool2d(3, 2)

        self.conv1 = convolution(channels, 96, 11, 4, 0, 1)
        self.pool1, self.norm1 = pooling(), layers.norm(96)
        self.conv2 = convolution(96, 256, 5, 1, 2, towers)
        self.pool2, self.norm2 = pooling(), layers.norm(256)
        self.conv3 = convolution(256, 384, 3, 1, 1, 1)
        self.conv4 = convolution(384, 384, 3, 1, 1, towers)
        self.conv5 = convolution(384, 256, 3, 1, 1, towers)
        self.pool5 = pooling()
        self.fc6 = nn.Linear(256 * side * side, layers.pieces * 4096)
        self.fc7 = nn.Linear(4096, layers.pieces * 4096)
        self.fc = nn.Linear(4096, classes)
        self.activation = layers.act()
        self.dropout = layers.drop()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm1(self.pool1(self.activation(self.conv1(x))))
        x = self.norm2(self.pool2(self.activation(self.conv2(x))))
        x = self.activation(self.conv4(self.activation(self.conv3(x))))
        x = self.pool5(self.activation(self.conv5(x)))
        x = self.activation(self.fc6(self.dropout(x.flatten(1))))
        x = self.activation(self.fc7(self.dropout(x)))
        return self.fc(x)


def alexnet2012(
    classes: int,
    *,
    image_size: int,
    seed: int,
    channels: int = 3,
    towers: int = 1,
    activation: str = "relu",
    normalization: str = "local_response",
    dropout: float = 0.5,
    dropout_form: str = "inverted",
    drop_connect: float = 0.0,
    initialisation: str | None = None,
    relu_bias: float = 0.0,
) -> AlexNet2012:
    """AlexNet 2012 from `seed`. The paper drew weights with deviation 0.01 (`initialisation="small_gaussian"`)."""
    layers = LayerChoice(activation, normalization, dropout, dropout_form, drop_connect)
    net = AlexNet2012(classes, image_size=image_size, channels=channels, towers=towers, layers=layers)
    initialise(net, seed, initialisation or layers.initialisation, relu_bias=relu_bias)
    layers.connect(net)
    scale_classifier(net, seed, image_size)
    return net


@dataclass(frozen=True)
class HistoricalChoice:
    """One choice of 2012: what it was, whether it is still advised, what is done now and why."""

    part: str
    then: str
    advised: bool
    now: str


HISTORICAL_CHOICES: tuple[HistoricalChoice, ...] = (
    HistoricalChoice(
        "ReLU", "max(0, x) in every layer, six times quicker to train than tanh", True, "Still the first choice."
    ),
    HistoricalChoice(
        "dropout",
        "0.5 in front of both hidden FC layers",
        True,
        "Still good in front of large FC layers; nets with BatchNorm and global pooling need little or none.",
    ),
    HistoricalChoice(
        "augmentation",
        "random crops, mirror images, PCA colour offsets",
        True,
        "Still needed; crops of random scale and RandAugment, mixup or CutMix go further.",
    ),
    HistoricalChoice(
        "local response normalisation",
        "after the first two convolutions",
        False,
        "Use BatchNorm after each convolution: VGG's authors measured no gain from LRN, only memory and time.",
    ),
    HistoricalChoice(
        "first filters of 11×11, stride 4",
        "224 pixels cut to 55 at once",
        False,
        "Use 7×7 with stride 2, part of ZFNet's step from 16.4% to 11.7% top-5 error in 2013, or a few 3×3.",
    ),
    HistoricalChoice(
        "5×5 filters",
        "in the second convolution",
        False,
        "Use stacks of 3×3 convolutions: the same field with fewer weights and more nonlinearities (VGG, 2014).",
    ),
    HistoricalChoice(
        "overlapping pooling",
        "3×3 windows with stride 2, for 0.4% of top-1 error",
        False,
        "Use 2×2 pooling or a convolution of stride 2: the gain does not carry over to deeper nets.",
    ),
    HistoricalChoice(
        "two FC layers of 4096",
        "hold 94% of the 62 million parameters",
        False,
        "Use global average pooling and one FC layer (GoogLeNet, ResNet): as accurate with a fraction of the weights.",
    ),
    HistoricalChoice(
        "two towers",
        "filters split over two cards of 3 GB",
        False,
        "Use one: today's cards hold the whole net. Grouped convolutions live on for their efficiency (ResNeXt).",
    ),
    HistoricalChoice(
        "initialisation",
        "Gaussian of deviation 0.01, biases of 1 in some layers",
        False,
        "Use Kaiming's √(2/fan in): a fixed small deviation makes deep activations fade.",
    ),
    HistoricalChoice(
        "schedule",
        "momentum 0.9, lr 0.01 divided by 10 when the validation error stalls, by hand",
        False,
        "Use a warm-up and a cosine decay: as good with nobody watching. Momentum 0.9 and weight decay 5e-4 hold.",
    ),
    HistoricalChoice(
        "no residual connections",
        "eight layers, each on the one before",
        False,
        "Use residual blocks: they let nets of 50 layers and more train at all (ResNet, 2015).",
    ),
)
