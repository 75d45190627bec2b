"""A pixel store in memory, for tests of what reads one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class MemoryStore:
    """Rows are the given H×W×3 uint8 images."""

    def __init__(self, images: Sequence[np.ndarray]) -> None:
        self.images = [np.ascontiguousarray(image) for image in images]
        self.usable = np.ones(len(self.images), dtype=bool)

    def __len__(self) -> int:
        return len(self.images)

    def image(self, row: int) -> np.ndarray:
        return self.images[row]

    def uniform(self) -> np.ndarray | None:
        alike = len({image.shape for image in self.images}) == 1
        return np.stack(self.images) if alike else None


def random_images(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def ramp(height: int, width: int) -> np.ndarray:
    """Channel 0 counts the rows, channel 1 the columns: a view of it tells where it was taken. Up to 256 a side."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([rows, columns, np.zeros_like(rows)], axis=2)
