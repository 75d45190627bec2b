"""Networks that want another learning rate than most: for own_default.py."""

from __future__ import annotations

import torch
from torch import nn


def _stage(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]


class TimesTwenty(nn.Module):
    """A small net whose input is twenty times too large."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(*_stage(3, 32), *_stage(32, 64), *_stage(64, 64), nn.Flatten())
        self.fc = nn.Linear(64 * 16, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(20.0 * x))


class DeepPlain(nn.Module):
    """Eight convolutions, no normalisation, no shortcuts, Kaiming start."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 32), (32, 64), (64, 96), (96, 128)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), *_stage(outputs, outputs)]
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.fc = nn.Linear(128 * 4, num_classes)
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x))
