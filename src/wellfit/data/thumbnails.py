"""16×16 colour thumbnails by exact area averaging: what near-duplicates are found by."""

from __future__ import annotations

from functools import cache

import numpy as np

SIDE = 16


def thumbnails(images: list[np.ndarray]) -> np.ndarray:
    """H×W×3 uint8 images of any sizes → N×16×16×3 uint8; an image without pixels gives zeros.

    Every thumbnail pixel is the mean over its 256th of the image, so that it hardly depends on the size the image was
    stored at. The result depends on the image alone, not on its neighbours in the list or on the thread count.
    """
    out = np.zeros((len(images), SIDE, SIDE, 3), dtype=np.uint8)
    rows_of: dict[tuple[int, int], list[int]] = {}
    for row, image in enumerate(images):
        if image.size:
            rows_of.setdefault((image.shape[0], image.shape[1]), []).append(row)
    for rows in rows_of.values():
        same = images[rows[0]][None] if len(rows) == 1 else np.stack([images[row] for row in rows])
        out[rows] = uniform_thumbnails(same)
    return out


def uniform_thumbnails(images: np.ndarray) -> np.ndarray:
    """N×H×W×3 uint8 → N×16×16×3 uint8, the same numbers as `thumbnails`."""
    # Sums of whole numbers, at most 255·H and then 255·H·W, that the floats hold exactly: the same bytes in whatever
    # order BLAS takes them. Pixel rows that weigh the same are added up first, which leaves 31 of them at most.
    count, height, width, channels = images.shape
    exact = np.float32 if height * width <= 2**24 // 256 else np.float64
    starts, lengths, weights = _runs(height)
    rows = np.matmul(weights.astype(exact), _summed(images.reshape(count, height, -1), starts, lengths).astype(exact))
    rows = rows.reshape(count, SIDE, width, channels).swapaxes(2, 3).reshape(-1, width)
    sums = (rows @ _weights(width).T.astype(exact)).reshape(count, SIDE, channels, SIDE).swapaxes(2, 3)
    area = height * width
    return ((sums + area // 2) // area).astype(np.uint8)


def _summed(rows: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """N×H×K uint8 → N×runs×K, the sums of runs of rows."""
    count, height, columns = rows.shape
    exact = np.uint16 if height <= 2**12 else np.uint32
    if (lengths == lengths[0]).all():
        return rows.reshape(count, len(starts), -1, columns).sum(axis=2, dtype=exact)
    out = rows[:, starts].astype(exact)
    for run in np.flatnonzero(lengths > 1).tolist():
        begin = int(starts[run])
        rows[:, begin : begin + int(lengths[run])].sum(axis=1, dtype=exact, out=out[:, run])
    return out


@cache
def _runs(length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of pixels that belong to the same sixteenths in the same shares: first pixel, length; 16×runs: weights."""
    weights = _weights(length)
    starts = np.flatnonzero(np.append(True, (np.diff(weights) != 0).any(axis=0)))
    return starts, np.diff(starts, append=length), weights[:, starts]


@cache
def _weights(length: int) -> np.ndarray:
    """16×length: how many sixteenths of each pixel belong to each sixteenth of the side; rows sum to `length`."""
    cells, pixels = np.arange(SIDE)[:, None], np.arange(length)[None, :]
    overlap = np.minimum((cells + 1) * length, (pixels + 1) * SIDE) - np.maximum(cells * length, pixels * SIDE)
    return np.maximum(overlap, 0).astype(np.float32)
