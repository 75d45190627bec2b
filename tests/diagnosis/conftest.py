"""Tiny real trainings on scikit-learn's digits (8×8, 10 classes), healthy and with one fault planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from wellfit.diagnosis.history import History
from wellfit.diagnosis.monitor import Monitor
from wellfit.findings import Finding

TRAIN = 1200
BATCH = 64


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Images N×1×8×8, standardised, and class numbers N."""
    images, labels = load_digits(return_X_y=True)
    images = (images - images.mean()) / images.std()
    return torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(labels)


def mlp(activation: type[nn.Module] = nn.ReLU, hidden: int = 2, width: int = 64) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(64, width), activation()]
    for _ in range(hidden - 1):
        layers += [nn.Linear(width, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


class Functional(nn.Module):
    """A network without activation modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3)
        self.second = nn.Conv2d(8, 16, 3)
        self.third = nn.Linear(256, 64)
        self.last = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.second(F.relu(self.first(x)))).flatten(1)
        return self.last(F.relu(self.third(x)))


def batch(n: int = 32) -> tuple[Tensor, Tensor]:
    x, y = digits()
    return x[:n], y[:n]


def one_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, **arguments) -> Tensor:
    loss = F.cross_entropy(model(x), y, **arguments)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


@dataclass
class Course:
    """How one training went."""

    history: History
    findings: list[Finding]
    unjudged: dict[str, str]
    statistics: dict

    @property
    def ids(self) -> list[str]:
        """Ids of severity warning or above, root cause first."""
        return [f.id for f in self.findings if f.severity != "info"]


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int = 180,
    loss_of: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    images: Tensor | None = None,
    labels: Tensor | None = None,
    zero_grad: bool = True,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    show_targets: bool = True,
    epochs: bool = True,
    seed: int = 0,
) -> Course:
    x, y = digits()
    x, y = images if images is not None else x, labels if labels is not None else y
    draw = torch.Generator().manual_seed(seed)
    per_epoch = TRAIN // BATCH
    order: list[Tensor] = []
    with Monitor(model, optimizer) as monitor:
        for step in range(steps):
            if not order:
                order = list(torch.randperm(TRAIN, generator=draw).split(BATCH))[:per_epoch]
            batch = order.pop()
            loss = loss_of(model(x[batch]), y[batch])
            if zero_grad:
                optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
            monitor.step(loss, targets=y[batch] if show_targets else None)
            if epochs and (step + 1) % per_epoch == 0:
                model.eval()
                with torch.no_grad():
                    seen, unseen = model(x[:TRAIN]), model(x[TRAIN:])
                    monitor.end_epoch(
                        train_loss=float(loss_of(seen, y[:TRAIN])),
                        train_accuracy=float((seen.argmax(1) == y[:TRAIN]).float().mean()),
                        val_loss=float(loss_of(unseen, y[TRAIN:])),
                        val_accuracy=float((unseen.argmax(1) == y[TRAIN:]).float().mean()),
                    )
                model.train()
        return Course(monitor.history, monitor.findings(), monitor.unjudged, monitor.statistics)


@pytest.fixture(autouse=True)
def _seeded_initialisation():
    torch.manual_seed(0)
