"""LeNet-5 as it is taught: CONV-POOL-CONV-POOL-FC-FC-FC.

LeCun, Bottou, Bengio, Haffner 1998, "Gradient-Based Learning Applied to Document Recognition"; SPEC N9.
"""

from __future__ import annotations

import torch
from torch import nn

from wellfit.errors import UserError
from wellfit.models.head import scale_classifier
from wellfit.models.init import initialise
from wellfit.models.layers.choice import LayerChoice
from wellfit.models.layers.pooling import FractionalMaxPool, build_pooling

SMALLEST = 16


class LeNet5(nn.Module):
    """N×channels×S×S → N×classes for one image size S of at least 16 pixels.

    Convolutions are 5×5 with stride 1 and no padding, subsampling is 2×2 with stride 2: 32 px gives maps of
    6×28×28, 6×14×14, 16×10×10, 16×5×5 and then 120, 84 and `classes` units. In 1998 the activation was "tanh" and
    the pooling "average". A normalisation stands before each activation, dropout behind the two fully connected ones.
    """

    def __init__(
        self,
        classes: int,
        *,
        image_size: int = 32,
        channels: int = 3,
        layers: LayerChoice | None = None,
        pooling: str = "max",
        pooling_ratio: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        layers = layers or LayerChoice(normalization="none")
        if image_size < SMALLEST:
            raise UserError(f"lenet5 takes images of at least {SMALLEST} pixels, got {image_size}; enlarge them")
        self.pool = build_pooling(pooling, ratio=pooling_ratio, seed=seed)
        p = layers.pieces
        side = self._pooled(self._pooled(image_size - 4) - 4)
        self.conv1 = nn.Conv2d(channels, 6 * p, kernel_size=5)
        self.norm1 = layers.norm(6 * p)
        self.conv2 = nn.Conv2d(6, 16 * p, kernel_size=5)
        self.norm2 = layers.norm(16 * p)
        self.fc1 = nn.Linear(16 * side * side, 120 * p)
        self.norm3 = layers.vector_norm(120 * p)
        self.fc2 = nn.Linear(120, 84 * p)
        self.norm4 = layers.vector_norm(84 * p)
        self.fc3 = nn.Linear(84, classes)
        self.activation = layers.act()
        self.dropout = layers.drop()
        layers.connect(self)

    def _pooled(self, side: int) -> int:
        return self.pool.output_side(side) if isinstance(self.pool, FractionalMaxPool) else side // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.activation(self.norm1(self.conv1(x))))
        x = self.pool(self.activation(self.norm2(self.conv2(x))))
        x = self.dropout(self.activation(self.norm3(self.fc1(x.flatten(1)))))
        x = self.dropout(self.activation(self.norm4(self.fc2(x))))
        return self.fc3(x)


def lenet5(
    classes: int,
    *,
    image_size: int,
    seed: int,
    channels: int = 3,
    activation: str = "relu",
    normalization: str = "none",
    dropout: float = 0.0,
    dropout_form: str = "inverted",
    drop_connect: float = 0.0,
    pooling: str = "max",
    pooling_ratio: float | None = None,
    initialisation: str | None = None,
    relu_bias: float = 0.0,
) -> LeNet5:
    """LeNet-5, initialised from `seed` by the rule that suits the activation unless told otherwise.

    activation to drop_connect: as in LayerChoice. pooling: "max", "average" or "fractional", whose maps shrink by
    `pooling_ratio` (None: √2) instead of 2.
    """
    layers = LayerChoice(activation, normalization, dropout, dropout_form, drop_connect)
    net = LeNet5(
        classes,
        image_size=image_size,
        channels=channels,
        layers=layers,
        pooling=pooling,
        pooling_ratio=pooling_ratio,
        seed=seed,
    )
    initialise(net, seed, initialisation or layers.initialisation, relu_bias=relu_bias)
    scale_classifier(net, seed, image_size)
    return net
