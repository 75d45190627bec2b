"""LeNet-5 as it is taught: CONV-POOL-CONV-POOL-FC-FC-FC.

LeCun, Bottou, Bengio, Haffner 1998, "Gradient-Based Learning Applied to Document Recognition"; SPEC N9.
"""

from __future__ import annotations

import torch
from torch import nn

from wellfit.errors import UserError
from wellfit.models.head import scale_classifier
from wellfit.models.init import initialise

SMALLEST = 16


class LeNet5(nn.Module):
    """N×channels×S×S → N×classes for one image size S of at least 16 pixels.

    Convolutions are 5×5 with stride 1 and no padding, subsampling is 2×2 with stride 2: 32 px gives maps of
    6×28×28, 6×14×14, 16×10×10, 16×5×5 and then 120, 84 and `classes` units.
    activation: "relu", or "tanh" as in 1998; pooling: "max", or "average" as in 1998.
    """

    def __init__(
        self,
        classes: int,
        *,
        image_size: int = 32,
        channels: int = 3,
        activation: str = "relu",
        pooling: str = "max",
    ) -> None:
        super().__init__()
        if image_size < SMALLEST:
            raise UserError(f"lenet5 takes images of at least {SMALLEST} pixels, got {image_size}; enlarge them")
        if activation not in ACTIVATIONS:
            raise UserError(f"lenet5's activation is one of {', '.join(ACTIVATIONS)}, got '{activation}'")
        if pooling not in POOLINGS:
            raise UserError(f"lenet5's pooling is one of {', '.join(POOLINGS)}, got '{pooling}'")
        side = ((image_size - 4) // 2 - 4) // 2
        self.conv1 = nn.Conv2d(channels, 6, kernel_size=5)
        self.conv2 = nn.Conv2d(6, 16, kernel_size=5)
        self.fc1 = nn.Linear(16 * side * side, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)
        self.activation = ACTIVATIONS[activation]()
        self.pool = POOLINGS[pooling](kernel_size=2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.activation(self.conv1(x)))
        x = self.pool(self.activation(self.conv2(x)))
        x = self.activation(self.fc1(x.flatten(1)))
        x = self.activation(self.fc2(x))
        return self.fc3(x)


def lenet5(
    classes: int,
    *,
    image_size: int,
    seed: int,
    channels: int = 3,
    activation: str = "relu",
    pooling: str = "max",
    initialisation: str | None = None,
    relu_bias: float = 0.0,
) -> LeNet5:
    """LeNet-5, initialised from `seed`: Kaiming with ReLU, Xavier with tanh unless told otherwise."""
    net = LeNet5(classes, image_size=image_size, channels=channels, activation=activation, pooling=pooling)
    initialise(net, seed, initialisation or ("kaiming" if activation == "relu" else "xavier"), relu_bias=relu_bias)
    scale_classifier(net, seed, image_size)
    return net


ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}
POOLINGS: dict[str, type[nn.Module]] = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}
