"""A small residual network for small images, quick to train on a plain processor.

The ingredients are published: a frozen 2×2 first layer whose filters whiten the training patches
(Page 2018, "How to train your ResNet"; Jordan 2024, arXiv:2404.00498), Dirac start of the later
convolutions (Jordan 2024), pooling before normalisation, and one residual convolution a group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from wellfit.errors import UserError
from wellfit.models.head import scale_classifier
from wellfit.models.layers.activations import activation_facts, build_activation
from wellfit.models.layers.dropout import build_dropout

Activation = Callable[[torch.Tensor], torch.Tensor]
PATCH_NUMBERS = 2**20  # of patches that are looked at together, float64: 8 MB


def _activation(name: str) -> Activation:
    return functional.relu if name == "relu" else build_activation(name)


class Group(nn.Module):
    """Convolution, 2×2 max pooling, BatchNorm, ReLU; then a residual convolution at the new resolution."""

    def __init__(self, inputs: int, outputs: int, activation: str = "relu") -> None:
        super().__init__()
        wide = activation_facts(activation).pieces * outputs
        self.first = nn.Conv2d(inputs, wide, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(wide)
        self.first_act = _activation(activation)
        self.second = nn.Conv2d(outputs, wide, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(wide)
        self.second_act = _activation(activation)
        for layer in (self.first, self.second):
            # The first channels pass the input through, so that the net starts as a shallow one.
            nn.init.dirac_(layer.weight[: layer.in_channels])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first_act(self.first_norm(functional.max_pool2d(self.first(x), 2)))
        return x + self.second_act(self.second_norm(self.second(x)))


class WhitenedNet(nn.Module):
    """Whitening stem, three groups, global max pooling, one fully connected layer.

    widths: channels of the three groups. Takes N×C×H×W of any size from 16 pixels; the classifier is `fc`.
    dropout: probability to drop a feature before it.
    """

    smallest_input = 16

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        widths: tuple[int, int, int] = (64, 128, 256),
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        patch = in_channels * 4
        # Maxout of a filter and its negative is the size of the filter's response: one channel of the two is left.
        stem = 2 * patch // activation_facts(activation).pieces
        self.whiten = nn.Conv2d(in_channels, 2 * patch, 2)
        self.whiten.weight.requires_grad_(False)
        self.whiten_act = _activation(activation)
        groups = []
        for inputs, outputs in zip((stem, *widths[:-1]), widths, strict=True):
            groups.append(Group(inputs, outputs, activation))
        self.groups = nn.Sequential(*groups)
        self.drop = build_dropout(dropout)
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.whiten_act(self.whiten(x))
        return self.fc(self.drop(self.groups(x).amax((2, 3))))

    @torch.no_grad()
    def initialise_from_data(self, images: torch.Tensor) -> None:
        """Set the stem from normalised training images N×C×H×W: patch eigenvectors over √eigenvalue, and negatives."""
        channels = images.shape[1]
        values, vectors = torch.linalg.eigh(_covariance_of_patches(images))
        # The floor keeps directions that hardly vary (flat images) from being blown up to noise.
        filters = (vectors / torch.sqrt(values.clamp_min(0) + 5e-4 * values.max().clamp_min(1e-6))).T
        filters = filters.reshape(-1, channels, 2, 2)
        self.whiten.weight.copy_(torch.cat([filters, -filters]).to(self.whiten.weight.dtype))


def _covariance_of_patches(images: torch.Tensor) -> torch.Tensor:
    """Covariance of the 2×2 patches of images N×C×H×W, float64 4C×4C.

    A few images at a time: all patches at once would take eight times the memory of the images, and copies of them.
    One pass suffices: normalised images have a mean near 0, so that its square takes no digits away.
    """
    width, (height, breadth) = 4 * images.shape[1], images.shape[2:]
    products = torch.zeros(width, width, dtype=torch.float64)
    sums = torch.zeros(width, dtype=torch.float64)
    for some in images.split(max(1, PATCH_NUMBERS // (width * height * breadth))):
        patches = functional.unfold(some.double(), 2)
        products += (patches @ patches.transpose(1, 2)).sum(0)
        sums += patches.sum((0, 2))
    count = len(images) * (height - 1) * (breadth - 1)
    return (products - torch.outer(sums, sums) / count) / (count - 1)


def whitened(
    classes: int,
    *,
    image_size: int,
    seed: int,
    channels: int = 3,
    widths: Sequence[int] = (64, 128, 256),
    activation: str = "relu",
    dropout: float = 0.0,
) -> WhitenedNet:
    """The net with its classifier scaled so that the first loss is log C. widths: channels of the three groups.

    activation: a name of ACTIVATIONS. dropout: probability to drop a feature before the classifier.
    """
    if len(widths) != 3 or min(widths) < 1:
        raise UserError(f"'widths' are three positive channel counts, got {list(widths)}; (64, 128, 256) is usual")
    first, second, third = widths
    net = WhitenedNet(classes, channels, (first, second, third), activation, dropout)
    scale_classifier(net, seed, image_size)
    return net
