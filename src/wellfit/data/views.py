"""One image, one square view of it: the fixed one for evaluation, the random one for training (SPEC D7)."""

from __future__ import annotations

import numpy as np

# The range of short sides that ResNet's training views are drawn from, relative to the crop (SPEC D7: 256-480 at 224).
SCALE_RANGE = (256 / 224, 480 / 224)


def resize_region(image: np.ndarray, top: float, left: float, height: float, width: float, size: int) -> np.ndarray:
    """The region, brought to size×size×3 uint8 by antialiased bilinear interpolation.

    image: H×W×3 uint8. The region is rounded to whole pixels and kept inside the image.
    """
    import torch
    from torch.nn import functional

    rows, columns = image.shape[:2]
    h, w = min(rows, max(1, round(height))), min(columns, max(1, round(width)))
    y, x = min(max(0, round(top)), rows - h), min(max(0, round(left)), columns - w)
    region = image[y : y + h, x : x + w]
    if (h, w) == (size, size):
        return region
    # A contiguous H×W×3 array seen as 1×3×H×W is channels_last, for which torch has a fast uint8 kernel.
    tensor = torch.from_numpy(np.array(region)).permute(2, 0, 1)[None]
    view = functional.interpolate(tensor, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return view[0].permute(1, 2, 0).numpy()


def resize_batch(images: np.ndarray, size: int) -> np.ndarray:
    """N×H×H×3 uint8 square images, brought to N×size×size×3 as `resize_region` does one."""
    import torch
    from torch.nn import functional

    if images.shape[1] == size:
        return images
    tensor = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
    views = functional.interpolate(tensor, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return views.permute(0, 2, 3, 1).numpy()


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
