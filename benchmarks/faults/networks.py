"""The networks of the cases, as users write them: small enough for some hundred steps on one thread.

`build(name, data, seed)` makes one for a data set; `NETWORKS` names them. A `seed` decides the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faults import data as faults_data
from faults.data import Tensors


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """What torch draws within is decided by `seed`; outside nothing changes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def build(name: str, data: Tensors, seed: int = 0) -> nn.Module:
    """The network `name` for the channels, the size and the classes of `data`."""
    with seeded(seed):
        return NETWORKS[name](data.channels, data.size, data.classes)


def he(module: nn.Module) -> nn.Module:
    """He et al. 2015 for the layers before a ReLU; biases 0. The last linear layer stays as PyTorch draws it."""
    for layer in _hidden(module):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return module


def xavier(module: nn.Module) -> nn.Module:
    """Glorot & Bengio 2010 for the layers before a tanh; biases 0. The last linear layer stays as PyTorch draws it."""
    for layer in _hidden(module):
        nn.init.xavier_normal_(layer.weight, nn.init.calculate_gain("tanh"))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return module


def _hidden(module: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)][:-1]


def lenet(channels: int, size: int, classes: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    """Two convolutions, two pools, three linear layers (LeCun et al. 1998)."""
    left = size // 2 // 2
    return nn.Sequential(
        nn.Conv2d(channels, 8, 5, padding=2),
        activation(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 5, padding=2),
        activation(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * left * left, 84),
        activation(),
        nn.Linear(84, 48),
        activation(),
        nn.Linear(48, classes),
    )


def vgg(
    channels: int, size: int, classes: int, *, norm: bool = False, dropout: float = 0.0, act: type = nn.ReLU
) -> nn.Module:
    """3×3 convolutions, 12 to 48 wide, a pool after each stage, and two linear layers (Simonyan & Zisserman 2015)."""
    stages = [(12,), (24, 24)] if size < 16 else [(12,), (24, 24), (48, 48)]
    layers: list[nn.Module] = []
    for place, widths in enumerate(stages):
        for width in widths:
            layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=not norm))
            layers += [nn.BatchNorm2d(width)] if norm else []
            layers.append(act())
            channels = width
        pool = 4 if size > 32 and place == 0 else 2
        layers.append(nn.MaxPool2d(pool))
        size //= pool
    layers += [nn.Flatten(), nn.Linear(channels * size * size, 64), act()]
    layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(64, classes))


class Residual(nn.Module):
    """Two 3×3 convolutions beside a shortcut (He et al. 2016)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """A stem, three residual blocks, mean over the map, one linear layer."""

    def __init__(self, channels: int, size: int, classes: int, width: int = 16) -> None:
        super().__init__()
        stride = 1 if size < 16 else 2 if size <= 32 else 4
        self.stem = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.layer1 = Residual(width, width, 1)
        self.layer2 = Residual(width, 2 * width, 2)
        self.layer3 = Residual(2 * width, 4 * width, 2)
        self.fc = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


def plain(channels: int, size: int, classes: int, depth: int = 10, width: int = 16) -> nn.Module:
    """`depth` convolutions with BatchNorm one after another, halving the map twice, no shortcut."""
    layers: list[nn.Module] = []
    for place in range(depth):
        halves = place in (depth // 3, 2 * depth // 3)
        stem = 1 if size < 16 else 2 if size <= 32 else 4
        stride = stem if place == 0 else 2 if halves else 1
        out = width * 2 if halves else width
        layers += [nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
        channels = width = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def mlp(
    channels: int, size: int, classes: int, *, act: type = nn.ReLU, hidden: tuple[int, ...] = (128, 64)
) -> nn.Module:
    """Linear layers on the flattened pixels."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = channels * size * size
    for out in hidden:
        layers += [nn.Linear(width, out), act()]
        width = out
    return nn.Sequential(*layers, nn.Linear(width, classes))


class Functional(nn.Module):
    """Activations and pools are functions: a watcher finds only convolutions and linear layers."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.fc1 = nn.Linear(32 * (size // 4) ** 2, 64)
        self.fc2 = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def squeezenet(channels: int, size: int, classes: int, *, pretrained: bool = True) -> nn.Module:
    """SqueezeNet 1.1 with ImageNet weights and a new last convolution (Iandola et al. 2016)."""
    from torchvision.models import squeezenet1_1

    model = squeezenet1_1()
    if pretrained:
        file = faults_data.folder() / "weights" / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
        model.load_state_dict(torch.load(file, weights_only=True))
    model.classifier[1] = nn.Conv2d(512, classes, 1)
    return model


NETWORKS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "lenet": lenet,
    "vgg": lambda *shape: he(vgg(*shape)),
    "vgg-bn": lambda *shape: vgg(*shape, norm=True),
    "vgg-dropout": lambda *shape: he(vgg(*shape, dropout=0.5)),
    "resnet": ResNet,
    "plain": plain,
    "mlp": mlp,
    "gelu": lambda *shape: he(vgg(*shape, act=nn.GELU)),
    "gelu-mlp": lambda *shape: mlp(*shape, act=nn.GELU),
    "tanh": lambda *shape: xavier(lenet(*shape, activation=nn.Tanh)),
    "tanh-mlp": lambda *shape: xavier(mlp(*shape, act=nn.Tanh)),
    "functional": Functional,
    "squeezenet": squeezenet,
}
