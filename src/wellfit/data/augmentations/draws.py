"""The random numbers behind augmentations, and what augmentations know of the training split.

The numbers come from a generator keyed by (seed, augmentation, epoch) and are indexed by image, so they do not depend
on batch size, worker or resume.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from wellfit.randomness import generator

if TYPE_CHECKING:
    from wellfit.data.preprocess import Preprocessing
    from wellfit.data.store import PixelStore

COLOUR_IMAGES = 4000  # enough to know a 3×3 covariance; more would only be slower
COLOUR_SIDE = 32  # pixels a side that are read of each


class Draws:
    """The numbers behind one augmentation for each epoch; row i belongs to training image i."""

    def __init__(self, seed: int, name: str, images: int, columns: int) -> None:
        self.seed, self.name, self.images, self.columns = seed, name, images, columns
        self._epoch, self._rows = -1, np.empty((0, columns))

    def rows(self, epoch: int, images: np.ndarray) -> np.ndarray:
        """One row of numbers in [0, 1) for each of the images."""
        if epoch != self._epoch:
            self._rows = self._draw(epoch)
            self._epoch = epoch
        return self._rows[images]

    def _draw(self, epoch: int) -> np.ndarray:
        if self.name == "flip":
            # Every image is seen mirrored in every second epoch: the same distribution with less repetition.
            first = generator(self.seed, self.name).random((self.images, self.columns))
            return first if epoch % 2 == 0 else 1.0 - first - np.finfo(float).eps
        return generator(self.seed, self.name, epoch).random((self.images, self.columns))


@dataclass(frozen=True)
class Figures:
    """What augmentations know of the training split.

    fill: uint8 S×S×3 or 1×1×3, the pixels that become zero at the network's input.
    colour_axes: 3×3, each column an eigenvector of the colours' covariance times its eigenvalue, in units of 0-1.
    """

    fill: np.ndarray = field(default_factory=lambda: np.zeros((1, 1, 3), dtype=np.uint8))
    colour_axes: np.ndarray = field(default_factory=lambda: np.zeros((3, 3)))


def fill_of(preprocessing: Preprocessing) -> np.ndarray:
    """The pixels that preprocessing turns into zero, to the nearest whole grey level."""
    mean = preprocessing.mean_image
    if mean is None:
        mean = np.asarray(preprocessing.mean)[None, None]
    return np.clip(np.rint(255.0 * mean), 0, 255).astype(np.uint8)


def colour_axes(store: PixelStore, rows: np.ndarray) -> np.ndarray:
    """Eigenvectors (columns, largest first) of the pixels' RGB covariance, each times its eigenvalue; units of 0-1.

    rows: store rows of the training split. Of large splits and images an even grid is read.
    """
    chosen = rows[:: -(-len(rows) // COLOUR_IMAGES)]
    count, total, products = 0, np.zeros(3), np.zeros((3, 3))
    for row in chosen:
        image = store.image(int(row))
        height, width = image.shape[:2]
        grid = image[:: -(-height // COLOUR_SIDE), :: -(-width // COLOUR_SIDE)]
        pixels = grid.reshape(-1, 3).astype(np.float64) / 255.0
        count += len(pixels)
        total += pixels.sum(0)
        products += pixels.T @ pixels
    mean = total / count
    values, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    return (vectors * np.maximum(values, 0.0))[:, ::-1]
