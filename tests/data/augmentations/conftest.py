"""Pictures and draws that the augmentations' tests share."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def smooth() -> np.ndarray:
    """uint8 8×32×32×3: soft blobs of colour, far from 0 and 255."""
    draw = np.random.default_rng(5)
    y, x = np.mgrid[:32, :32] / 31
    images = np.empty((8, 32, 32, 3))
    for image in images:
        for channel in range(3):
            a, b, c, d = draw.uniform(0.5, 3, 4)
            image[:, :, channel] = 128 + 50 * np.sin(a * np.pi * x + b) * np.cos(c * np.pi * y + d)
    return np.rint(images).astype(np.uint8)


def middle(columns: int, count: int = 8) -> np.ndarray:
    """The draws that mean "unchanged" where the draw is even around it."""
    return np.full((count, columns), 0.5)


def even_grid(count: int) -> np.ndarray:
    """count×1 draws that cover [0, 1) evenly: a mean over them is the mean over the draws."""
    return ((np.arange(count) + 0.5) / count)[:, None]
