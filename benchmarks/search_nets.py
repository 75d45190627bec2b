"""The small network that search.py searches settings for."""

from __future__ import annotations

import torch
from torch import nn


class StridedLeNet(nn.Module):
    """N×3×28×28 grey images → N×classes: LeNet-5's units with strides for pooling, as LeCun et al. had it in 1989.

    Convolutions are 5×5 with stride 2; maps of 6×14×14 and 16×7×7, then 72 units; 59,526 parameters with 10 classes.
    """

    def __init__(self, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5, stride=2, padding=2)
        self.fc1 = nn.Linear(16 * 7 * 7, 72)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(72, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv1(x[:, :1].contiguous()))
        x = torch.relu(self.conv2(x))
        x = torch.relu(self.fc1(x.flatten(1)))
        return self.fc2(self.dropout(x))
