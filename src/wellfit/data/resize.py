"""Antialiased resizing of uint8 pixels, by torch's kernels: the one way in which images change their size.

The arithmetic is in whole numbers: the weights of each axis are rounded to multiples of 2⁻ᵖ, with the largest p ≤ 22 at
which the largest of them fits into 16 bits; columns come before rows; each sum is rounded half up and clipped to 0-255.
On x86-64, torch at its settings AVX512, AVX2 and DEFAULT was compared bit by bit, on sides of two pixels and more: it
is the same; other processors were not tried. `inference.image_graph` repeats the arithmetic in exported models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def resized(pixels: np.ndarray, height: int, width: int, method: str) -> np.ndarray:
    """H×W×3 or N×H×W×3 uint8 → height×width×3 or N×height×width×3 uint8, contiguous, new memory.

    method: "bilinear" or "bicubic" (a = -1/2). Weights are spread over as many pixels as one of the result covers, so
    that nothing is skipped when shrinking; enlarging interpolates. One thread; the GIL is not held.
    """
    import torch

    operation = {
        "bilinear": torch.ops.aten._upsample_bilinear2d_aa.out,
        "bicubic": torch.ops.aten._upsample_bicubic2d_aa.out,
    }[method]
    whole = pixels if pixels.ndim == 4 else pixels[None]
    out = np.empty((len(whole), height, width, 3), np.uint8)
    # `functional.interpolate` lays a single image out by planes and takes as long for that as for the resizing.
    operation(_seen(whole), (height, width), False, None, None, out=_seen(out))
    return out if pixels.ndim == 4 else out[0]


def _seen(pixels: np.ndarray) -> torch.Tensor:
    """N×H×W×3 as N×3×H×W in the layout channels_last, which torch has vector kernels for."""
    import torch

    return torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(0, 3, 1, 2)
