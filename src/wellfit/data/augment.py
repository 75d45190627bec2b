"""Augmentations of a whole uint8 batch, and the draws behind them.

Each takes the batch and one row of numbers in [0, 1) per image; the numbers come from a generator
keyed by (seed, augmentation, epoch) and are indexed by image, so they do not depend on batch size,
worker or resume.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wellfit.errors import UserError, unknown_name
from wellfit.randomness import generator

PADDING = 1 / 8  # of the side: how far "crop" shifts an image (4 pixels at 32, as ResNet's CIFAR runs)


def shift(images: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Random shift by up to an eighth of the side, the rim reflected. N×S×S×3 → N×S×S×3.

    draws: N×2 in [0, 1), vertical and horizontal.
    """
    side = images.shape[1]
    pad = max(1, round(side * PADDING))
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
    offsets = np.minimum((draws * (2 * pad + 1)).astype(np.int64), 2 * pad)
    result = np.empty_like(images)
    for out, source, (top, left) in zip(result, padded, offsets, strict=True):
        out[...] = source[top : top + side, left : left + side]
    return result


def flip(images: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Mirror the images whose draw is below one half (SPEC D6). draws: N×1."""
    chosen = draws[:, 0] < 0.5
    result = images.copy()
    result[chosen] = images[chosen, :, ::-1]
    return result


class Draws:
    """The numbers behind one augmentation for each epoch; row i belongs to training image i."""

    def __init__(self, seed: int, name: str, images: int, columns: int) -> None:
        self.seed, self.name, self.images, self.columns = seed, name, images, columns
        self._epoch, self._rows = -1, np.empty((0, columns))

    def rows(self, epoch: int, images: np.ndarray) -> np.ndarray:
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


# name → (function of the batch, numbers drawn for each image). Where the evaluation view is a centre crop, "crop"
# takes SPEC D7's random views instead, when the view itself is made.
AUGMENTATIONS: dict[str, tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], int]] = {
    "flip": (flip, 1),
    "crop": (shift, 2),
}


def check_names(names: tuple[str, ...]) -> None:
    """UserError for a name that is not offered, or one given twice."""
    for name in names:
        if name not in AUGMENTATIONS:
            raise unknown_name("augmentation", name, [*AUGMENTATIONS, "auto", "none"])
    if len(set(names)) < len(names):
        raise UserError(f"each augmentation is named once, got {', '.join(names)}; drop the repeated one")
