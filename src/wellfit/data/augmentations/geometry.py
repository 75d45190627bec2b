"""Rotation, translation, stretch, shear and lens distortion, resampled once however many are combined (SPEC D11).

Each is a map of places: where in the source the pixel at (x, y) of the result is read. Places are in [−1, 1], 0 the
centre of the image. Consecutive maps are put together before any pixel is read: quicker, and less blurred, than
resampling for each. What lies outside the image is its reflection, or a given fill.

Training: angle, offset, factor or bend are drawn evenly around "unchanged". Test: unchanged, the middle of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

# (x, y, draws N×k in [0, 1), strength) → (x, y): tensors that broadcast to N×S×S.
PlaceMap = Callable[
    ["torch.Tensor", "torch.Tensor", np.ndarray, float],
    "tuple[torch.Tensor, torch.Tensor]",
]


def rotate(x: torch.Tensor, y: torch.Tensor, draws: np.ndarray, degrees: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn by an angle uniform in ±`degrees`. draws: N×1."""
    angle = _even(draws[:, 0], math.radians(degrees))
    cosine, sine = angle.cos(), angle.sin()
    return cosine * x - sine * y, sine * x + cosine * y


def translate(x: torch.Tensor, y: torch.Tensor, draws: np.ndarray, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Move by an offset uniform in ±`share` of the side, each way. draws: N×2."""
    return x + _even(draws[:, 0], 2 * share), y + _even(draws[:, 1], 2 * share)


def stretch(x: torch.Tensor, y: torch.Tensor, draws: np.ndarray, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale width and height on their own, the logarithm of each factor uniform in ±log(1 + `share`). draws: N×2."""
    reach = math.log1p(share)
    return x * _even(draws[:, 0], reach).exp(), y * _even(draws[:, 1], reach).exp()


def shear(x: torch.Tensor, y: torch.Tensor, draws: np.ndarray, degrees: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Slant both axes by angles uniform in ±`degrees`. draws: N×2."""
    reach = math.radians(degrees)
    across, down = _even(draws[:, 0], reach).tan(), _even(draws[:, 1], reach).tan()
    return x + across * y, y + down * x


def lens(x: torch.Tensor, y: torch.Tensor, draws: np.ndarray, bend: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Radial distortion r → r·(1 + k·r²), k uniform in ±`bend`, r = 1 at the middle of a side. draws: N×1.

    k > 0 reads from further out and draws the rim inwards (barrel); k < 0 draws it outwards (pincushion). The first
    term of Brown's model (1966). At the corners r² = 2: below a bend of 1/6 no part of the image is folded over.
    """
    factor = 1 + _even(draws[:, 0], bend) * (x * x + y * y)
    return x * factor, y * factor


def warp(
    images: np.ndarray, maps: Sequence[tuple[PlaceMap, np.ndarray, float]], fill: np.ndarray | None = None
) -> np.ndarray:
    """Apply the maps in their order, each with its draws and strength, by one bilinear resampling.

    images: uint8 N×S×S×3. fill: uint8 pixels shown outside the image, S×S×3 or 1×1×3; None: the image's reflection.
    """
    import torch
    from torch.nn import functional

    count, side = images.shape[:2]
    places = (2 * torch.arange(side, dtype=torch.float32) + 1) / side - 1
    x, y = places.view(1, 1, side), places.view(1, side, 1)
    for place_map, draws, strength in reversed(maps):  # the last map's result is what the one before it reads from
        x, y = place_map(x, y, draws, strength)
    grid = torch.stack([x.expand(count, side, side), y.expand(count, side, side)], dim=3)
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    pixels = pixels.to(torch.float32, memory_format=torch.contiguous_format)
    # Outside the image `grid_sample` shows zero: with the fill as zero, it shows the fill.
    ground = None if fill is None else torch.from_numpy(fill.astype(np.float32)).permute(2, 0, 1)
    if ground is not None:
        pixels = pixels - ground
    padding = "reflection" if ground is None else "zeros"
    result = functional.grid_sample(pixels, grid, mode="bilinear", padding_mode=padding, align_corners=False)
    if ground is not None:
        result = result + ground
    whole = result.add_(0.5).clamp_(0, 255.5).to(torch.uint8)
    return whole.permute(0, 2, 3, 1).contiguous().numpy()


def _even(draws: np.ndarray, reach: float) -> torch.Tensor:
    """N×1×1 values in ±reach from draws in [0, 1): the middle draw gives 0."""
    import torch

    return torch.from_numpy(((2 * draws - 1) * reach).astype(np.float32)).view(-1, 1, 1)
