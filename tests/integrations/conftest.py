"""Digits (8×8, 10 classes), small, for trainers that bring their own loop."""

from __future__ import annotations

import logging
from functools import cache

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

TRAIN = 384


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Images N×1×8×8, standardised, and class numbers N."""
    images, labels = load_digits(return_X_y=True)
    images = (images - images.mean()) / images.std()
    return torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(labels)


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


def bytes_of(model: nn.Module) -> bytes:
    return b"".join(t.detach().cpu().contiguous().numpy().tobytes() for t in model.state_dict().values())


def warnings_of(findings) -> list[str]:
    return [f.id for f in findings if f.severity != "info"]


@pytest.fixture
def said(caplog):
    """The sentences of the doctor so far."""
    caplog.set_level(logging.INFO, logger="wellfit.doctor")
    return lambda: [r.getMessage() for r in caplog.records if r.name == "wellfit.doctor"]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
