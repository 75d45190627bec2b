"""Networks that want another learning rate than most: for own_default.py."""

from __future__ import annotations

import torch
from torch import nn


class Plain(nn.Module):
    """Convolutions and ReLU in three stages, no normalisation, no shortcuts, Kaiming start. For 32 pixels."""

    def __init__(
        self, num_classes: int, *, widths: tuple[int, ...] = (12, 24, 48), a_stage: int = 1, scale: float = 1.0
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for width in widths:
            for _ in range(a_stage):
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
                inputs = width
            layers.append(nn.MaxPool2d(2))
        self.scale = scale
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.fc = nn.Linear(inputs * 16, num_classes)
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(self.scale * x))


class TimesTwenty(Plain):
    """Its input is twenty times too large."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, scale=20.0)


class DeepPlain(Plain):
    """Nine convolutions."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, widths=(8, 16, 24), a_stage=3)
