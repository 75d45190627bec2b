"""16×16 colour thumbnails by exact area averaging: what near-duplicates are found by."""

from __future__ import annotations

from functools import cache
from typing import Any

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
    count, height, width, channels = images.shape
    exact = np.uint32 if height * width < 2**24 else np.uint64  # holds 255·H·W
    rows = _sixteenths(images.reshape(count, height, -1), exact).reshape(count, SIDE, width, channels)
    sums = _sixteenths(rows.swapaxes(1, 2).reshape(count, width, -1), exact).reshape(count, SIDE, SIDE, channels)
    area = height * width
    return ((sums.swapaxes(1, 2) + area // 2) // area).astype(np.uint8)


def _sixteenths(values: np.ndarray, exact: type[np.unsignedinteger[Any]]) -> np.ndarray:
    """N×L×K whole numbers → N×16×K: L times the mean over each sixteenth of the axis, pixels cut where they must be.

    No product of matrices, though it is one: BLAS has threads of its own, which wait by spinning and take the cores
    from the threads that decode. Pixels that weigh the same are added up first.
    """
    starts, lengths, places, weights = _runs(values.shape[1])
    summed = _summed(values, starts, lengths, exact)
    return np.add.reduce(
        [summed[:, place] * weight.astype(exact)[:, None] for place, weight in zip(places, weights, strict=True)]
    )


def _summed(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray, exact: type[np.unsignedinteger[Any]]) -> Any:
    """N×L×K → N×runs×K, the sums of runs along the axis."""
    count, length, columns = values.shape
    if values.dtype == np.uint8:  # a run is at most a sixteenth of the side
        exact = np.uint16 if length <= 2**12 else np.uint32
    if (lengths == lengths[0]).all():
        return values.reshape(count, len(starts), -1, columns).sum(axis=2, dtype=exact)
    out = values[:, starts].astype(exact)
    for run in np.flatnonzero(lengths > 1).tolist():
        begin = int(starts[run])
        values[:, begin : begin + int(lengths[run])].sum(axis=1, dtype=exact, out=out[:, run])
    return out


@cache
def _runs(length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Runs of pixels that belong to the same sixteenths in the same shares: first pixel, length.

    And which runs each sixteenth is made of, and in how many sixteenths of a pixel: P×16 each, P the most that one is
    made of; where one has fewer, a run weighs 0.
    """
    weights = _weights(length)
    starts = np.flatnonzero(np.append(True, (np.diff(weights) != 0).any(axis=0)))
    whole = weights[:, starts]
    places = np.argsort(whole == 0, axis=1, kind="stable")[:, : int((whole > 0).sum(axis=1).max())].T
    return starts, np.diff(starts, append=length), places, np.take_along_axis(whole, places.T, axis=1).T


@cache
def _weights(length: int) -> np.ndarray:
    """16×length: how many sixteenths of each pixel belong to each sixteenth of the side; rows sum to `length`."""
    cells, pixels = np.arange(SIDE)[:, None], np.arange(length)[None, :]
    overlap = np.minimum((cells + 1) * length, (pixels + 1) * SIDE) - np.maximum(cells * length, pixels * SIDE)
    return np.maximum(overlap, 0)
