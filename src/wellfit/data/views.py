"""One image, one square view of it: the fixed one for evaluation, the random one for training (SPEC D7)."""

from __future__ import annotations

import numpy as np

from wellfit.data.resize import resized

# The range of short sides that ResNet's training views are drawn from, relative to the crop (SPEC D7: 256-480 at 224).
SCALE_RANGE = (256 / 224, 480 / 224)


def resize_region(image: np.ndarray, top: float, left: float, height: float, width: float, size: int) -> np.ndarray:
    """The region, brought to size×size×3 uint8 by antialiased bilinear interpolation.

    image: H×W×3 uint8. The region is rounded to whole pixels and kept inside the image.
    """
    rows, columns = image.shape[:2]
    h, w = min(rows, max(1, round(height))), min(columns, max(1, round(width)))
    y, x = min(max(0, round(top)), rows - h), min(max(0, round(left)), columns - w)
    region = image[y : y + h, x : x + w]
    if (h, w) == (size, size):
        return region
    return resized(region, size, size, "bilinear")


def resize_batch(images: np.ndarray, size: int) -> np.ndarray:
    """N×H×H×3 uint8 square images, brought to N×size×size×3 as `resize_region` does one."""
    return images if images.shape[1] == size else resized(images, size, size, "bilinear")


def evaluation_view(image: np.ndarray, resize: int, size: int) -> np.ndarray:
    """Short side to `resize`, centre size×size: size×size×3 uint8."""
    rows, columns = image.shape[:2]
    side = min(rows, columns) * size / resize
    return resize_region(image, (rows - side) / 2, (columns - side) / 2, side, side, size)


def training_view(image: np.ndarray, size: int, draws: np.ndarray) -> np.ndarray:
    """Short side to L, L uniform in SCALE_RANGE × size, then a random size×size crop (SPEC D7).

    draws: three numbers in [0, 1): scale, vertical and horizontal place.
    """
    rows, columns = image.shape[:2]
    low, high = SCALE_RANGE
    side = min(rows, columns) / (low + (high - low) * draws[0])
    return resize_region(image, draws[1] * (rows - side), draws[2] * (columns - side), side, side, size)
