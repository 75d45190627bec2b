"""How many images a healthy training of each set sees, and how long: enough to learn, too little to overfit."""

from __future__ import annotations

from typing import Any

DIGITS: dict[str, Any] = {"train": 1200, "validation": 400, "epochs": 12, "batch_size": 64}
FASHION: dict[str, Any] = {"train": 3000, "validation": 500, "epochs": 4, "batch_size": 64}
CIFAR: dict[str, Any] = {"train": 5000, "validation": 500, "epochs": 3, "batch_size": 64, "side": 16}
PHOTOS: dict[str, Any] = {"train": 240, "validation": 150, "epochs": 4, "batch_size": 16}
