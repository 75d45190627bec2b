"""VGG of 11, 13, 16 and 19 layers, with BatchNorm and without, under torchvision's state-dict keys.

Simonyan and Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition"; SPEC V1, N9.
Three 3×3 convolutions see 7×7 pixels with 27·C² weights where one 7×7 has 49·C².
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from wellfit.models.head import scale_classifier
from wellfit.models.init import initialise
from wellfit.models.layers.choice import LayerChoice

# Convolutions in each of the five blocks, which have 64, 128, 256, 512 and 512 filters and end in 2×2 pooling.
DEPTHS: dict[int, tuple[int, int, int, int, int]] = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
FILTERS = (64, 128, 256, 512, 512)
SMALL_IMAGE = 64
HIDDEN = 4096
PAPER = LayerChoice(normalization="none", dropout=0.5)


class VGG(nn.Module):
    """N×channels×H×W → N×classes for images of at least 32 pixels.

    depth: layers with weights, one of 11, 13, 16, 19. small_head: global average pooling and hidden layers of 512
    units, for images of up to about 64 pixels, whose last map is 1×1 or 2×2: the head for 224 pixels would repeat it
    7×7 times and hold 100 million weights for it. layers: the paper's are ReLU and dropout of 0.5 in the classifier.
    """

    def __init__(
        self,
        depth: int,
        classes: int,
        *,
        channels: int = 3,
        small_head: bool = False,
        layers: LayerChoice = PAPER,
    ) -> None:
        super().__init__()
        pieces = layers.pieces
        parts: list[nn.Module] = []
        inputs = channels
        for convolutions, outputs in zip(DEPTHS[depth], FILTERS, strict=True):
            for _ in range(convolutions):
                parts.append(nn.Conv2d(inputs, pieces * outputs, 3, padding=1))
                if layers.normalization != "none":  # which would take a place in the numbering of the keys
                    parts.append(layers.norm(pieces * outputs))
                parts.append(layers.act())
                inputs = outputs
            parts.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*parts)
        side, hidden = (1, inputs) if small_head else (7, HIDDEN)
        self.avgpool = nn.AdaptiveAvgPool2d(side)
        self.classifier = nn.Sequential(
            nn.Linear(inputs * side * side, pieces * hidden),
            layers.act(),
            layers.drop(),
            nn.Linear(hidden, pieces * hidden),
            layers.act(),
            layers.drop(),
            nn.Linear(hidden, classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def build_vgg(
    depth: int,
    normalized: bool,
    classes: int,
    *,
    image_size: int,
    seed: int,
    channels: int = 3,
    small_head: bool | None = None,
    activation: str = "relu",
    normalization: str | None = None,
    dropout: float = 0.5,
    dropout_form: str = "inverted",
    drop_connect: float = 0.0,
    initialisation: str | None = None,
    relu_bias: float = 0.0,
) -> VGG:
    """A VGG from `seed`; `small_head=None` means: for images up to 64 pixels.

    normalization: None is BatchNorm in the nets that are called after it and none in the others.
    """
    named = normalization or ("batch" if normalized else "none")
    layers = LayerChoice(activation, named, dropout, dropout_form, drop_connect)
    small = image_size <= SMALL_IMAGE if small_head is None else small_head
    net = VGG(depth, classes, channels=channels, small_head=small, layers=layers)
    initialise(net, seed, initialisation or layers.initialisation, relu_bias=relu_bias)
    layers.connect(net)
    scale_classifier(net, seed, image_size)
    return net


VGG_NETS: dict[str, Callable[..., nn.Module]] = {
    f"vgg{depth}{suffix}": partial(build_vgg, depth, bool(suffix)) for depth in DEPTHS for suffix in ("", "_bn")
}
