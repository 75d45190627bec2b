"""Mirror images and small shifts: whole pixels are moved and none is computed anew (SPEC D6, D7).

Training: an image is mirrored or not, and stands up to a share of its side off its place. Test: neither; the plain
image is the middle of the shifts, and of the two mirror images the one that occurs.
"""

from __future__ import annotations

import numpy as np


def shift(images: np.ndarray, draws: np.ndarray, most: float) -> np.ndarray:
    """Random shift by whole pixels, the rim reflected. N×S×S×3 → N×S×S×3.

    draws: N×2 in [0, 1), vertical and horizontal. most: share of the side, in (0, 0.5]; at least one pixel.
    """
    side = images.shape[1]
    pad = max(1, round(side * most))
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
    offsets = np.minimum((draws * (2 * pad + 1)).astype(np.int64), 2 * pad)
    result = np.empty_like(images)
    for out, source, (top, left) in zip(result, padded, offsets, strict=True):
        out[...] = source[top : top + side, left : left + side]
    return result


def flip(images: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Mirror the images whose draw is below one half (SPEC D6). draws: N×1."""
    import torch

    chosen = np.flatnonzero(draws[:, 0] < 0.5)
    result = images.copy()
    # torch has a kernel for pixels of three bytes; numpy's reversed copy takes six times as long.
    result[chosen] = torch.from_numpy(images[chosen]).permute(0, 3, 1, 2).flip(3).permute(0, 2, 3, 1).numpy()
    return result
