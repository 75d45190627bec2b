"""Erasing a part of the image, so that the class is not read from one place alone (SPEC D13).

The erased pixels take the value that preprocessing turns into zero: the network's input is zero there.

Training: a pixel is erased with some chance q, largest in the middle. Test: nothing is erased; a network that sees the
mean of the training images would see each pixel with 1 − q of its contrast.
"""

from __future__ import annotations

import math

import numpy as np

AREA = (0.02, 0.33)  # shares of the image, as Zhong et al. 2017
ASPECT = 3.3  # height / width, and its inverse


def cutout(images: np.ndarray, draws: np.ndarray, share: float, fill: np.ndarray) -> np.ndarray:
    """Erase a square of `share` of the side, its centre anywhere, so that it may reach over the rim.

    DeVries & Taylor 2017: 0.5 (16 pixels of 32) for CIFAR-10, 0.25 for CIFAR-100. draws: N×2. uint8 N×S×S×3.
    """
    side = images.shape[1]
    square = max(1, round(share * side))
    start = (draws * side).astype(np.int64) - square // 2
    stop = np.minimum(start + square, side)
    return _erase(images, np.maximum(start, 0), stop, fill)


def random_erasing(images: np.ndarray, draws: np.ndarray, chance: float, fill: np.ndarray) -> np.ndarray:
    """With the given chance, erase a rectangle of 2 to 33% of the image that lies inside it (Zhong et al. 2017).

    The logarithm of its height / width is uniform in ±log 3.3, narrowed to what fits into the image. draws: N×5.
    """
    side = images.shape[1]
    chosen = draws[:, 0] < chance
    area = AREA[0] + (AREA[1] - AREA[0]) * draws[:, 1]
    reach = np.minimum(math.log(ASPECT), -np.log(area))
    aspect = np.exp((2 * draws[:, 2] - 1) * reach)
    lengths = np.sqrt(area[:, None] * np.stack([aspect, 1 / aspect], axis=1))
    pixels = np.clip(np.rint(lengths * side), 1, side).astype(np.int64)
    start = (draws[:, 3:5] * (side - pixels + 1)).astype(np.int64)
    return _erase(images, start, start + pixels * chosen[:, None], fill)


def _erase(images: np.ndarray, start: np.ndarray, stop: np.ndarray, fill: np.ndarray) -> np.ndarray:
    """start, stop: N×2 rows and columns; an empty range erases nothing."""
    result = images.copy()
    ground = np.broadcast_to(fill, images.shape[1:])
    for image, (top, left), (bottom, right) in zip(result, start.tolist(), stop.tolist(), strict=True):
        image[top:bottom, left:right] = ground[top:bottom, left:right]
    return result
