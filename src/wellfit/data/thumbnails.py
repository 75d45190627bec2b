"""16×16 colour thumbnails by exact area averaging: what near-duplicates are found by."""

from __future__ import annotations

from functools import cache

import numpy as np

SIDE = 16
# Below this many pixels the sums of `_averaged` are whole numbers that float32 holds exactly.
_EXACT_PIXELS = 2**24 // 256


def thumbnails(images: list[np.ndarray]) -> np.ndarray:
    """H×W×3 uint8 images of any sizes → N×16×16×3 uint8; an image without pixels gives zeros.

    Every thumbnail pixel is the mean over its sixteenth of the image, so that it hardly depends on the size the image
    was stored at. The result depends on the image alone, not on its neighbours in the list or on the thread count.
    """
    out = np.zeros((len(images), SIDE, SIDE, 3), dtype=np.uint8)
    rows_of: dict[tuple[int, int], list[int]] = {}
    for row, image in enumerate(images):
        if image.size:
            rows_of.setdefault((image.shape[0], image.shape[1]), []).append(row)
    for (height, width), rows in rows_of.items():
        if height * width <= _EXACT_PIXELS:
            out[rows] = _averaged(np.stack([images[row] for row in rows]))
        else:
            for row in rows:
                out[row] = _by_pillow(images[row])
    return out


def uniform_thumbnails(images: np.ndarray) -> np.ndarray:
    """N×H×W×3 uint8 → N×16×16×3 uint8, the same numbers as `thumbnails`."""
    if images.shape[1] * images.shape[2] > _EXACT_PIXELS:
        return thumbnails(list(images))
    return _averaged(images)


@cache
def _weights(length: int) -> np.ndarray:
    """16×length: how many sixteenths of each pixel belong to each sixteenth of the side; rows sum to `length`."""
    cells, pixels = np.arange(SIDE)[:, None], np.arange(length)[None, :]
    overlap = np.minimum((cells + 1) * length, (pixels + 1) * SIDE) - np.maximum(cells * length, pixels * SIDE)
    return np.maximum(overlap, 0).astype(np.float32)


def _averaged(images: np.ndarray) -> np.ndarray:
    # Whole-number sums, exact in float32 in whatever order BLAS takes them: the same bytes on every machine.
    count, height, width, channels = images.shape
    rows = np.matmul(_weights(height), images.reshape(count, height, width * channels).astype(np.float32))
    sums = np.matmul(_weights(width), rows.reshape(count * SIDE, width, channels))
    area = height * width
    return ((sums.reshape(count, SIDE, SIDE, channels) + area // 2) // area).astype(np.uint8)


def _by_pillow(image: np.ndarray) -> np.ndarray:
    from PIL import Image

    small = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=4.0)
    return np.asarray(small)
